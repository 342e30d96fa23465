"""Transactions that were admitted and not yet applied."""
