"""`p2pcity doctor`: what is wrong with a node, why, and the command or setting that mends it."""
