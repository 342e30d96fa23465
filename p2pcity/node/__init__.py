"""The daemon: composition root, the loops that turn the pure rooms, settings and logs."""
