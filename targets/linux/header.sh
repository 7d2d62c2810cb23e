#!/bin/sh
# coding: copy-the-file-again-it-is-incomplete
# Python alone reads the line above: of a file without its end, instead of the zip file.
# This file installs an app for the user who runs it, without a network:
#   sh FILE [--prefix DIR] [--no-start] [--port N] [--systemd]
# A zip file follows these lines; "python3 FILE" does the same.
if ! command -v python3 >/dev/null 2>&1; then
  echo "$0: this app needs Python 3; there is no python3 on this device" >&2
  exit 2
fi
exec python3 -I -X utf8 -c '
import runpy, sys, zipfile
sys.argv = sys.argv[1:]
try:
    if not zipfile.is_zipfile(sys.argv[0]):
        raise ValueError("its end is missing")
    runpy.run_path(sys.argv[0], run_name="__main__")
except KeyboardInterrupt:
    sys.exit(130)
except Exception as error:
    text = "%s: not a complete package file (%s); copy it again" % (sys.argv[0], error)
    sys.stderr.write(" ".join(text.split()) + "\n")
    sys.exit(2)
' "$0" "$@"
exit 1
