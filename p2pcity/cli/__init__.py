"""The command line: one file a command group; each is imported only when it is called."""
