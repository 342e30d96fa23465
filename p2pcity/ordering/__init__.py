"""What happens with what Raft hands out, and in which order; pure, everything else handed in."""
