"""`p2pcity testnet chaos`: try to break a local network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from p2pcity.cli import exit_codes
from p2pcity.cli.chaos.options import trial_options
from p2pcity.cli.chaos.plan import NEMESES, ONLY_ON_ITS_OWN, Trial, draw
from p2pcity.cli.duration import Duration
from p2pcity.cli.output import print_json
from p2pcity.errors import ConfigError

if TYPE_CHECKING:
    from p2pcity.cli.chaos.course import Outcome, Say
    from p2pcity.cli.chaos.ground import Ground

_NODES: Final = 3


@click.command(
    epilog="\b\nNemeses:\n"
    + "\n".join(f"  {name:<10} {what}" for name, what in NEMESES.items())
    + "\n\nOnly without NETWORK: "
    + ", ".join(name for name in NEMESES if name in ONLY_ON_ITS_OWN)
    + "."
)
@trial_options
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
    "--nodes",
    type=click.IntRange(3, 7),
    help=f"Processes to make, which all vote [default: {_NODES}].",
)
@click.option(
    "--batch",
    type=click.IntRange(1, 256),
    default=16,
    show_default=True,
    help="Transactions that a client sends at a time, at most.",
)
@click.option(
    "--check",
    "checked",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Run nothing: check the history and the ledgers in DIR again.",
)
def chaos(
    network: Path | None,
    seed: int,
    seconds: float,
    nemesis: str | None,
    nodes: int | None,
    batch: int,
    directory: Path | None,
    checked: Path | None,
    is_json: bool,
) -> int:
    """Try to break a local network.

    Without NETWORK makes a network of processes whose bytes pass through relays. NETWORK is the
    directory of one that `testnet init` made, of containers or of processes, which can't be cut
    off then; it is started if it is down, and down at the end. Lets clients write and read, and
    lets faults strike that are drawn from the seed. Run by root, with nft, what is cut off
    loses its packets, processes in a network namespace of their own; otherwise relays hold the
    bytes of processes, and containers are not cut off. Then everything is mended, all ledgers
    are read, and the clients' history is held against them: nothing acknowledged may be lost or
    stand twice, no linearizable read may be stale, streams may have no gap. Exit code 1 when
    that is not so, or when the run shows nothing because a fault never struck or nobody was
    answered. The same seed draws the same strikes; what they meet depends on the machine.
    """
    if checked is not None:
        return _check_again(checked, is_json)

    from p2pcity.cli.chaos.existing import open_ground
    from p2pcity.cli.chaos.report import make_report, print_report
    from p2pcity.cli.chaos.running import finish, run, sayer

    say = sayer(is_json)
    ground = open_ground(network)
    if nodes is not None and ground.size is not None:
        raise click.UsageError("--nodes is for a network that is made: NETWORK has its nodes")
    orderers, observers = ground.size or (nodes or _NODES, 0)
    names = _choose(nemesis, ground, say)
    trial = Trial(
        seed=seed,
        plan=draw(seed, names, seconds),
        names=names,
        orderers=orderers,
        observers=observers,
        batch=batch,
        strikes_again=True,
    )

    def judge(outcome: Outcome) -> dict[str, Any]:
        return make_report(outcome, names, seed, orderers + observers)

    report = run(trial, ground, directory, judge, say)
    return finish(report, "testnet-chaos", print_report, is_json)


def _choose(text: str | None, ground: Ground, say: Say) -> list[str]:
    """The nemeses that were asked for; without any, all that can strike here."""
    asked = [part.strip() for part in text.split(",") if part.strip()] if text else list(NEMESES)
    reasons = {name: ground.why_not(name) for name in dict.fromkeys(asked) if name in NEMESES}
    impossible = [reason for reason in reasons.values() if reason]
    if text is None:
        for reason in impossible:
            say(f"left out: {reason}")
        return [name for name, reason in reasons.items() if not reason]
    if impossible:
        raise ConfigError(
            "; ".join(impossible), remedy=f"{ground.remedy}, or leave it out of --nemesis."
        )
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
