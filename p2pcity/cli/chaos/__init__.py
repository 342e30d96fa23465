"""`p2pcity testnet chaos`: a local network under faults, its clients' history, and its checker."""
