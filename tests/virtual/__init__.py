"""Whole nodes on virtual time: real drivers, wires in memory, one seeded scheduler.

A node here is `node.assembly.Parts` as the daemon makes it: every loop, every store, every file.
Replaced are the network (`wires`), the threads (`threads`), the clocks and chance. All of it is
drawn from one seed; `python -m tests.virtual --seeds 1 --seed S --trace` shows a seed again.
"""
