"""What can be rebuilt from the log: the SQL and the rows of each view; one file a view.

Nothing here opens a file: `ledger/views_store.py` does, and hands a connection in.
"""
