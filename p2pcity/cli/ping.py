"""`p2pcity ping`: how long nodes take to answer over HTTP, and peers over libp2p."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from p2pcity.cli import exit_codes
from p2pcity.cli.node_address import node_option, open_client, token_option
from p2pcity.cli.output import json_option, print_json, print_table
from p2pcity.errors import ConfigError
from p2pcity.node.places import CONFIG_NAME

if TYPE_CHECKING:
    from p2pcity.api.client import Client

COUNT_MAX: Final = 1_000
PERIOD_S: Final = 0.5
PEERS_PERIOD_S: Final = 4.0
"""A node measures its peers so often (`net.config.NetConfig.round_trip_interval_s`)."""
_ANSWER_S: Final = 5.0
_REMEDIES: Final = {
    "refused": "`p2pcity peers -v` says why one side sent the other away.",
    "banned": "Look for `peer_fault` in the log; it may come back once the ban is over.",
    "unknown-address": "Add its multiaddr to net.peers, or start it: it tells its addresses then.",
}
_AWAY: Final = (
    "Check that it runs (`p2pcity status` there), and that this host reaches its net.listen port."
)


@dataclass(slots=True)
class Target:
    """One node or peer, and what came of it so far.

    `rtt_ms` has one figure for each time that it answered. `state` is ok, degraded or
    unreachable, by the last try; `error` and `remedy` say why it is not ok.
    """

    name: str
    way: str
    address: str
    rtt_ms: list[float] = field(default_factory=list)
    state: str = "unreachable"
    error: str = ""
    remedy: str = ""

    def answered(self, rtt_ms: float, error: str = "", remedy: str = "") -> None:
        """Note an answer; with `error` it says that something is wrong."""
        self.rtt_ms.append(round(rtt_ms, 3))
        self.note("degraded" if error else "ok", error, remedy)

    def note(self, state: str, error: str, remedy: str) -> None:
        """Note how the last try ended."""
        self.state, self.error, self.remedy = state, error, remedy


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NODE-OR-PEER...")
@click.option(
    "--count", type=click.IntRange(1, COUNT_MAX), default=4, show_default=True, help="Tries each."
)
@node_option
@token_option
@json_option
def ping(
    names: tuple[str, ...],
    count: int,
    node_address: str | None,
    token_file: Path | None,
    is_json: bool,
) -> int:
    """Measure how long nodes and peers take to answer.

    A URL, a Unix socket or a node's directory is asked over HTTP (/livez; the first answer
    includes connecting). Anything else is a peer of the local node (--node), by peer id, name or
    member/name: the round trip over libp2p is the one that the node itself measures every two
    seconds. Exit code 4 when somebody does not answer, 3 when all do and something is wrong.

    \b
    With --json:
      targets   name, way (http, libp2p), address, tries, rtt_ms (one figure an answer),
                state (ok, degraded, unreachable), error, remedy
    """
    with contextlib.ExitStack() as stack:
        nodes: list[tuple[Target, Client]] = []
        targets: list[Target] = []
        for name in names:
            if _is_node(name):
                client = stack.enter_context(open_client(name, token_file, _ANSWER_S))
                targets.append(Target(name, "http", client.address))
                nodes.append((targets[-1], client))
            else:
                targets.append(Target(name, "libp2p", ""))
        peers = [target for target in targets if target.way == "libp2p"]
        local = stack.enter_context(open_client(node_address, token_file)) if peers else None
        for number in range(count):
            if number:
                time.sleep(PEERS_PERIOD_S if peers else PERIOD_S)
            for target, client in nodes:
                _ask_node(target, client)
            if local is not None:
                _ask_peers(peers, local)
    if is_json:
        print_json("ping", {"targets": [_document(target, count) for target in targets]})
    else:
        _print(targets, count)
    states = {target.state for target in targets}
    if "unreachable" in states:
        return exit_codes.UNREACHABLE
    return exit_codes.DEGRADED if "degraded" in states else 0


def _is_node(name: str) -> bool:
    """Whether it is an address; anything else is to be found among the peers."""
    if "://" in name or name.startswith(("unix:", "/", "./", "../")):
        return True
    if os.path.isdir(name):
        return os.path.isfile(os.path.join(name, CONFIG_NAME))
    return os.path.exists(name)


def _ask_node(target: Target, client: Client) -> None:
    from p2pcity.api.client import ApiProblem, Unreachable

    begin_s = time.perf_counter()
    try:
        client.get("/livez")
    except Unreachable as error:
        target.note("unreachable", str(error), error.remedy)
    except ApiProblem as problem:
        target.answered((time.perf_counter() - begin_s) * 1000, str(problem), problem.remedy)
    else:
        target.answered((time.perf_counter() - begin_s) * 1000)


def _ask_peers(targets: list[Target], local: Client) -> None:
    rows: list[dict[str, Any]] = local.get_json("/v1/peers")["peers"]
    for target in targets:
        row = find_peer(rows, target.name)
        target.address = f"{row['peer']} {row['address']}".strip()
        if not row["is_connected"]:
            state = row["state"]
            why = f" ({row['refusal']})" if row["refusal"] else ""
            remedy = _REMEDIES.get(state, _AWAY)
            target.note("unreachable", f"the peer is {state}{why}", remedy)
        elif row["rtt_ms"] is None:
            what = "it is connected and has not answered a heartbeat yet"
            target.note("degraded", what, "Ask again in a few seconds.")
        else:
            target.answered(row["rtt_ms"])


def find_peer(rows: list[dict[str, Any]], name: str) -> Mapping[str, Any]:
    """Return the row of /v1/peers that `name` means: a peer id, a name or member/name.

    Raises ConfigError when there is none, or more than one.
    """
    found = [
        row
        for row in rows
        if name and name in (row["peer"], row["name"], (row["name"] or "").rpartition("/")[2])
    ]
    if len(found) == 1:
        return found[0]
    what = "is no peer of this node" if not found else f"means {len(found)} peers"
    raise ConfigError(
        f"{name!r} {what}, and no node's address either",
        remedy="Name a peer by its whole id (`p2pcity peers -v`), or a node by URL or path.",
    )


def _document(target: Target, count: int) -> dict[str, Any]:
    return {
        "name": target.name,
        "way": target.way,
        "address": target.address,
        "tries": count,
        "rtt_ms": target.rtt_ms,
        "state": target.state,
        "error": target.error,
        "remedy": target.remedy,
    }


def _print(targets: list[Target], count: int) -> None:
    rows = []
    for target in targets:
        times = target.rtt_ms
        figures = (min(times), statistics.median(times), max(times)) if times else (None,) * 3
        rows.append((target.name, target.way, f"{len(times)}/{count}", *figures, target.state))
    print_table(["WHO", "WAY", "ANSWERED", "MIN MS", "MEDIAN", "MAX", "STATE"], rows)
    for target in targets:
        if target.error:
            error = target.error.rstrip(".")
            click.echo(f"p2pcity: {target.name}: {error}. {target.remedy}", err=True)
