"""The units in a real systemd."""
