"""The bytes of protocol/: strict deterministic CBOR, COSE_Sign1, limits and every message."""
