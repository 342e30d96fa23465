"""`p2pcity testnet scenario`: a file says what happens to a network, and what must hold then."""
