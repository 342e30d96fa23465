"""`p2pcity testnet scenario`: run a scenario file and say whether what it expects holds."""

import sys
from pathlib import Path
from typing import Any

import click

from p2pcity.cli import exit_codes
from p2pcity.cli.output import json_option, print_json
from p2pcity.errors import ConfigError


@click.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option(
    "--seed", type=int, default=1, show_default=True, help="Draws what the file leaves open."
)
@click.option(
    "-o",
    "--output",
    "directory",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep nodes, history.ndjson and ledgers.ndjson here [default: only of a failed run].",
)
@json_option
def scenario(file: Path, seed: int, directory: Path | None, is_json: bool) -> int:
    """Run a scenario file, and say whether what it expects holds.

    FILE says which nodes there are, what load is on them, which faults strike whom when, and
    what is expected; testnet/scenarios/ has examples. The network is made, started, struck and
    mended as `testnet chaos` does it, and judged by the same checker. A line for each
    expectation says PASS or FAIL, and what was seen; exit code 1 when one does not hold.
    """
    from p2pcity.cli.chaos.course import Outcome
    from p2pcity.cli.chaos.nemeses import why_not
    from p2pcity.cli.chaos.running import run
    from p2pcity.cli.scenario.reading import read
    from p2pcity.cli.scenario.verdict import make_verdict, print_verdict

    def say(text: str) -> None:
        print(text, file=sys.stderr if is_json else sys.stdout, flush=True)

    found = read(file)
    trial = found.trial(seed)
    reasons = [reason for reason in map(why_not, trial.names) if reason]
    if reasons:
        raise ConfigError(
            f"{file} can't be run on this machine: {'; '.join(reasons)}",
            remedy="Provide what is missing, or leave that fault out of the file.",
        )

    def judge(outcome: Outcome, is_cabled: bool) -> dict[str, Any]:
        return make_verdict(found, outcome, seed, is_cabled=is_cabled)

    say(found.title)
    report = run(trial, directory, judge, say)
    if is_json:
        print_json("testnet-scenario", report)
    else:
        print_verdict(report)
    return 0 if report["is_ok"] else exit_codes.FAILED
