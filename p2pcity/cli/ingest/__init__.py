"""`p2pcity ingest`: a file of records, mapped to signed events, sent so that nothing doubles."""
