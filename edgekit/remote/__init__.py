"""Devices: this machine or one over SSH, what is sent to them and what they answer."""
