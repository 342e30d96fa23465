"""The systemd units, and the command that installs them. `systemd/` links to the files here."""
