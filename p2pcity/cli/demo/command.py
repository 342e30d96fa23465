"""`p2pcity demo`: the first command of the README."""

import contextlib
import os
import shlex
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import click

from p2pcity.cli import exit_codes
from p2pcity.cli.output import json_option, print_json
from p2pcity.errors import ConfigError

COUNT_DEFAULT: Final = 8000
COUNT_MIN: Final = 48
NODES: Final = 4
ORDERERS: Final = 3


@click.command()
@click.option(
    "--events",
    "events_file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Load these CloudEvents (JSON, one a line) instead of New York's departures and weather.",
)
@click.option(
    "--count",
    type=click.IntRange(min=COUNT_MIN),
    help=f"How many events to load [default: {COUNT_DEFAULT:,}; of a FILE all].",
)
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep the nodes' files here [default: a temporary directory, removed at the end].",
)
@click.option("--exit", "is_exiting", is_flag=True, help="End after the report.")
@json_option
def demo(
    events_file: Path | None,
    count: int | None,
    directory: Path | None,
    is_exiting: bool,
    is_json: bool,
) -> int:
    """Run a city: four nodes order real events.

    Three orderers and an observer, each a process, order the departures and the weather of New
    York's airports. Half way the leader is killed. The report says what became of every event;
    exit code 0 only if none was lost or doubled and all ledgers are equal. Then the network
    stays up until Ctrl-C.
    """
    from p2pcity.cli.demo.bundles import bundle
    from p2pcity.cli.demo.events import read_file
    from p2pcity.cli.demo.flights import read_flights
    from p2pcity.cli.testnet import signals
    from p2pcity.cli.testnet.local_network import LocalNetwork

    if events_file is None:
        events = read_flights(count or COUNT_DEFAULT)
    else:
        events = read_file(events_file, count)
    if len(events) < COUNT_MIN:
        raise ConfigError(
            f"{len(events)} events are too few to load half of them and then the rest",
            remedy=f"Give at least {COUNT_MIN} events.",
        )
    bundles = bundle(events, max(1, min(12, len(events) // 48)))
    authors = list(dict.fromkeys(item.author for item in bundles))
    place = directory or Path(tempfile.mkdtemp(prefix="p2pcity-demo-"))
    with signals.ending():
        network = None
        try:
            network = LocalNetwork.create(
                place, nodes=NODES, orderers=ORDERERS, authors=authors, name="demo"
            )
            keys = {name: network.author_key(name) for name in authors}
            report = _run(network, bundles, keys, is_json)
            report["directory"] = str(network.directory)
            if is_json:
                print_json("demo", report)
                sys.stdout.flush()
            else:
                _print(report, network.directory, is_exiting)
            if not is_exiting:
                _wait_for_ever()
            return 0 if report["is_ok"] else exit_codes.FAILED
        finally:
            # Stopping is bounded, and must not be left half done.
            with signals.ignored():
                if network is not None:
                    network.stop()
                    if directory is None:
                        network.remove()
                elif directory is None:
                    shutil.rmtree(place, ignore_errors=True)


def _run(network: Any, bundles: Any, keys: Any, is_json: bool) -> dict[str, Any]:
    """Start the nodes, take the course and return the report."""
    from p2pcity.cli.demo import ledgers, report
    from p2pcity.cli.demo.course import Course
    from p2pcity.cli.demo.screen import open_screen

    screen = open_screen(sys.stderr if is_json else sys.stdout)
    try:
        total = sum(len(item.events) for item in bundles)
        screen.say(
            f"{total:,} events of {len(keys)} authors; "
            f"{ORDERERS} orderers and {NODES - ORDERERS} observer start in {network.directory}"
        )
        network.start()
        network.wait_ready()
        screen.say("all nodes are ready; loading begins")
        outcome = Course(network, bundles, keys, screen).run()
        screen.say("reading every ledger, event by event")
        found = ledgers.read_ledgers(network)
        comparison = ledgers.compare(outcome.acknowledged, found)
        made = report.make_report(outcome, found, comparison)
        chosen = report.choose_followed(outcome)
        if chosen is not None:
            made["followed"] = {
                "id": chosen.signed.id,
                "author": chosen.signed.author,
                "events": len(chosen.signed.names),
                "sent_to": list(chosen.nodes),
                "nodes": ledgers.follow(network, chosen.signed.id),
            }
        return made
    finally:
        screen.close()


def _print(report: dict[str, Any], directory: Path, is_exiting: bool) -> None:
    from p2pcity.cli.demo.report import print_report

    print_report(report)
    if is_exiting:
        return
    program = _program()
    first, observer = (shlex.quote(str(directory / f"node{n}")) for n in (1, NODES))
    print(f"\nThe network runs until Ctrl-C; its files are in {directory}. Try:\n")
    for line in (
        f"status --node {first}",
        f"peers --node {observer}",
        f"raft status --node {first}",
        f"query --limit 5 --node {observer}",
        f"tail --from 1 --node {observer}",
        f"submit --type lamp.failed --subject lamp-7 --data '{{\"street\": 1}}' --node {first}",
    ):
        print(f"  {program} {line}")
    sys.stdout.flush()


def _program() -> str:
    """Return how this command was called, as one can type it again."""
    if shutil.which("p2pcity"):
        return "p2pcity"
    called = Path(sys.argv[0])
    if called.name == "p2pcity":
        return shlex.quote(os.path.relpath(called))
    return f"{shlex.quote(sys.executable)} -m p2pcity"


def _wait_for_ever() -> None:
    """Return at Ctrl-C."""
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)
