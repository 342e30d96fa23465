"""Everything on disk: the segment log, the outbox, SQLite, the lock and the writer threads."""
