"""`p2pcity testnet scenario`: run a scenario file and say whether what it expects holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from p2pcity.cli.chaos.options import trial_options
from p2pcity.errors import ConfigError

if TYPE_CHECKING:
    from p2pcity.cli.chaos.course import Outcome


@click.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@trial_options
def scenario(
    file: Path, network: Path | None, seed: int, directory: Path | None, is_json: bool
) -> int:
    """Run a scenario file, and say whether what it expects holds.

    FILE says which nodes there are, what load is on them, which faults strike whom when, and
    what is expected; testnet/scenarios/ has examples. A network of processes is made for it, or
    NETWORK is one of that size, as for `testnet chaos`; started, struck and mended
    as there, and judged by the same checker. A line for each expectation says PASS or FAIL, and
    what was seen; exit code 1 when one does not hold.
    """
    from p2pcity.cli.chaos.existing import open_ground
    from p2pcity.cli.chaos.running import finish, run, sayer
    from p2pcity.cli.scenario.reading import read
    from p2pcity.cli.scenario.verdict import make_verdict, print_verdict

    say = sayer(is_json)
    found = read(file)
    ground = open_ground(network)
    trial = found.trial(seed)
    reasons = [reason for reason in map(ground.why_not, trial.names) if reason]
    if reasons:
        raise ConfigError(
            f"{file} can't be run here: {'; '.join(reasons)}",
            remedy=f"{ground.remedy}, or leave that fault out of the file.",
        )

    def judge(outcome: Outcome) -> dict[str, Any]:
        return make_verdict(found, outcome, seed)

    say(found.title)
    report = run(trial, ground, directory, judge, say)
    return finish(report, "testnet-scenario", print_verdict, is_json)
