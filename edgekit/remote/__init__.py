"""Access to devices, over SSH or on this machine: sessions, uploads, installs and answers."""
