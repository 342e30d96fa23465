"""Runs a trial for a command: where its files go, what is kept of it, and how it is reported."""

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from p2pcity.cli import exit_codes
from p2pcity.cli.chaos.course import HISTORY_FILE, Course, Outcome, Say
from p2pcity.cli.chaos.ground import Ground
from p2pcity.cli.chaos.plan import Trial
from p2pcity.cli.output import print_json
from p2pcity.cli.testnet import signals
from p2pcity.errors import ConfigError


def sayer(is_json: bool) -> Say:
    """Return what tells people how a run goes: aside when the report is for a program."""

    def say(text: str) -> None:
        print(text, file=sys.stderr if is_json else sys.stdout, flush=True)

    return say


def run(
    trial: Trial,
    ground: Ground,
    directory: Path | None,
    judge: Callable[[Outcome], dict[str, Any]],
    say: Say,
) -> dict[str, Any]:
    """Run a trial in `directory`, or in one that is kept only when the report is not `is_ok`.

    `judge` makes the report of what came of it.
    """
    if directory is not None and (directory / HISTORY_FILE).exists():
        raise ConfigError(
            f"{directory} holds the history of a run already", remedy="Name another directory."
        )
    home = directory or Path(tempfile.mkdtemp(prefix="p2pcity-chaos-"))
    is_kept = True
    say(ground.about)
    with signals.ending():
        try:
            outcome = Course(home, trial, ground, say=say).run()
            report = judge(outcome)
            is_kept = directory is not None or not report["is_ok"]
        finally:
            if not is_kept or (directory is None and not any(home.iterdir())):
                shutil.rmtree(home, ignore_errors=True)
            elif home.exists():
                say(f"logs, history and ledgers are in {home}")
    return report


def finish(
    report: dict[str, Any], schema: str, print_it: Callable[[dict[str, Any]], None], is_json: bool
) -> int:
    """Print a report, as JSON by its schema's name or for people; the command's exit code."""
    if is_json:
        print_json(schema, report)
    else:
        print_it(report)
    return 0 if report["is_ok"] else exit_codes.FAILED
