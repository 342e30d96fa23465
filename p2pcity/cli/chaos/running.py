"""Runs a trial for a command: where its files go, the namespace it is in, what is kept of it."""

import shutil
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from p2pcity.cli.chaos import cables
from p2pcity.cli.chaos.course import Course, Outcome, Say
from p2pcity.cli.chaos.plan import Trial
from p2pcity.cli.testnet import signals


def run(
    trial: Trial,
    directory: Path | None,
    judge: Callable[[Outcome, bool], dict[str, Any]],
    say: Say,
) -> dict[str, Any]:
    """Run a trial in `directory`, or in one that is kept only when the report is not `is_ok`.

    `judge` makes the report of what came of it, told whether cuts lost packets.
    """
    home = directory or Path(tempfile.mkdtemp(prefix="p2pcity-chaos-"))
    is_kept = True
    reason = cables.why_not()
    say("cuts " + (f"hold bytes; to lose packets {reason}" if reason else "lose packets"))
    with signals.ending(), nullcontext() if reason else cables.own_namespace():
        try:
            outcome = Course(home, trial, say=say, is_cabled=not reason).run()
            report = judge(outcome, not reason)
            is_kept = directory is not None or not report["is_ok"]
        finally:
            if is_kept:
                say(f"nodes, history and ledgers are in {home}")
            else:
                shutil.rmtree(home, ignore_errors=True)
    return report
