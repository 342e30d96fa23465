"""The simulator: whole ordering nodes, their disks and clients in one event heap, from one seed.

`python -m tests.sim --seeds 300` runs 300 seeds; see `run.py` for what a seed is.
"""
