"""`p2pcity testnet chaos`: try to break a local network."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from p2pcity.cli import exit_codes
from p2pcity.cli.chaos.plan import NEMESES, Trial, draw
from p2pcity.cli.duration import Duration
from p2pcity.cli.output import json_option, print_json
from p2pcity.errors import ConfigError


@click.command(
    epilog="\b\nNemeses:\n" + "\n".join(f"  {name:<10} {what}" for name, what in NEMESES.items())
)
@click.option("--seed", type=int, default=1, show_default=True, help="Draws what strikes when.")
@click.option(
    "--for",
    "seconds",
    type=Duration(longest_s=3600),
    default="60s",
    show_default=True,
    metavar="TIME",
    help="How long faults strike.",
)
@click.option(
    "--nemesis",
    "nemesis",
    metavar="NAME,...",
    help="Which faults [default: all that this machine allows].",
)
@click.option(
    "--nodes", type=click.IntRange(3, 7), default=3, show_default=True, help="All of them vote."
)
@click.option(
    "--batch",
    type=click.IntRange(1, 256),
    default=16,
    show_default=True,
    help="Transactions that a client sends at a time, at most.",
)
@click.option(
    "-o",
    "--output",
    "directory",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep nodes, history.ndjson and ledgers.ndjson here [default: only of a failed run].",
)
@click.option(
    "--check",
    "checked",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Run nothing: check the history and the ledgers in DIR again.",
)
@json_option
def chaos(
    seed: int,
    seconds: float,
    nemesis: str | None,
    nodes: int,
    batch: int,
    directory: Path | None,
    checked: Path | None,
    is_json: bool,
) -> int:
    """Try to break a local network.

    Makes a network of processes whose bytes pass through relays, lets clients write and read,
    and lets faults strike that are drawn from the seed. Run by root, with nft, it is in a network
    namespace of its own, where what is cut off loses its packets; otherwise relays hold its
    bytes. Then everything is mended, all ledgers are read, and the clients' history is held
    against them: nothing acknowledged may be lost or stand twice, no linearizable read may be
    stale, streams may have no gap. Exit code 1 when that is not so, or when the run shows nothing
    because a fault never struck or nobody was answered. The same seed draws the same strikes;
    what they meet depends on the machine.
    """
    if checked is not None:
        return _check_again(checked, is_json)

    from p2pcity.cli.chaos.course import Outcome
    from p2pcity.cli.chaos.report import make_report, print_report
    from p2pcity.cli.chaos.running import run

    def say(text: str) -> None:
        print(text, file=sys.stderr if is_json else sys.stdout, flush=True)

    names = _choose(nemesis, say)
    plan = draw(seed, names, seconds)
    trial = Trial(
        seed=seed, plan=plan, names=names, orderers=nodes, batch=batch, strikes_again=True
    )

    def judge(outcome: Outcome, is_cabled: bool) -> dict[str, Any]:
        return make_report(outcome, names, seed, nodes, is_cabled=is_cabled)

    report = run(trial, directory, judge, say)
    if is_json:
        print_json("testnet-chaos", report)
    else:
        print_report(report)
    return 0 if report["is_ok"] else exit_codes.FAILED


def _choose(text: str | None, say: Callable[[str], None]) -> list[str]:
    """The nemeses that were asked for; without any, all that can strike here."""
    from p2pcity.cli.chaos.nemeses import why_not

    asked = [part.strip() for part in text.split(",") if part.strip()] if text else list(NEMESES)
    reasons = {name: why_not(name) for name in dict.fromkeys(asked) if name in NEMESES}
    impossible = [reason for reason in reasons.values() if reason]
    if text is None:
        for reason in impossible:
            say(f"left out: {reason}")
        return [name for name, reason in reasons.items() if not reason]
    if impossible:
        raise ConfigError("; ".join(impossible), remedy="Leave it out of --nemesis.")
    return list(dict.fromkeys(asked))


def _check_again(directory: Path, is_json: bool) -> int:
    """Hold a history that was kept against the ledgers beside it."""
    from p2pcity.cli.chaos import history
    from p2pcity.cli.chaos.checker import check
    from p2pcity.cli.chaos.course import HISTORY_FILE, LEDGERS_FILE

    operations = history.read(directory / HISTORY_FILE)
    findings = check(operations, history.read_ledgers(directory / LEDGERS_FILE))
    shown = [f"{item.kind}: {item.says}" for item in findings.shown]
    if is_json:
        counts = dict(findings.counts)
        print_json(
            "testnet-chaos-check",
            {"operations": len(operations), "findings": counts, "shown": shown},
        )
    else:
        for line in shown:
            print(f"FOUND: {line}")
        print(f"{len(operations):,} operations, {findings.counts.total():,} findings")
    return exit_codes.FAILED if findings.counts else 0
