"""Hashes, Ed25519 keys and the Merkle tree of RFC 9162; pure, no clock and no file."""
