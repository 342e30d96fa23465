"""What to ask which peer for, and whether the answer is right; pure."""
