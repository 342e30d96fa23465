"""`python -m tests.virtual --seeds N [--seed S] [--changing] [--pruning] [--trace]`: run seeds."""

import argparse
import sys
import time
from itertools import count, islice

from tests.virtual.run import is_changing, is_pruning
from tests.virtual.summary import SEEDS_FILE, Summary, run_seeds


def main() -> int:
    """Run what the command line asks for; 1 when a seed failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.virtual", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--trace", action="store_true", help="print everything that happens")
    parser.add_argument("--changing", action="store_true", help="only those whose city changes")
    parser.add_argument("--pruning", action="store_true", help="only those that keep few blocks")
    parser.add_argument("--jobs", type=int, default=1, help="how many processes")
    parser.add_argument("--hashes", action="store_true", help="print each seed's trace hash")
    arguments = parser.parse_args()
    summary = Summary()
    started_s = time.monotonic()
    found = (
        seed
        for seed in count(arguments.seed)
        if (is_changing(seed) or not arguments.changing)
        and (is_pruning(seed) or not arguments.pruning)
    )
    seeds = islice(found, arguments.seeds)
    for outcome in run_seeds(seeds, jobs=arguments.jobs, is_traced=arguments.trace):
        summary.add(outcome)
        if arguments.hashes:
            print(f"{outcome.seed} {outcome.trace_hash}", flush=True)
        if outcome.failure:
            print(f"seed {outcome.seed}: {outcome.failure}")
            print(
                f"replay: python -m tests.virtual --seeds 1 --seed {outcome.seed} --trace",
                flush=True,
            )
    print(summary.text(time.monotonic() - started_s))
    if summary.failed:
        print(f"put failing seeds into tests/virtual/{SEEDS_FILE.name}", file=sys.stderr)
    return 1 if summary.failed else 0


if __name__ == "__main__":
    sys.exit(main())
