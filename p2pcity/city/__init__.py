"""What the ledger means: who belongs to the city and who may say what; pure and deterministic."""
