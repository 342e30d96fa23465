"""Local networks: several nodes of one machine, each a process of its own."""
