"""`p2pcity raft recover`: one node goes on alone when a quorum is gone for ever."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from p2pcity.cli.node_address import config_option
from p2pcity.cli.output import json_option, print_json, print_pairs
from p2pcity.errors import ConfigError

if TYPE_CHECKING:
    from p2pcity.cli.stopped_node import StoppedNode
    from p2pcity.ordering.recovery import Survey


@click.command()
@click.option(
    "--yes-lose-what-is-missing",
    "confirmed",
    metavar="NETWORK",
    help="The network's name, as a yes: whatever this node lacks is lost.",
)
@config_option
@json_option
def recover(confirmed: str | None, config_file: Path | None, is_json: bool) -> None:
    """Let this stopped node go on alone, under the next epoch.

    Only when so many orderers are gone for ever that no quorum can come back. Says what may be
    lost, asks for the network's name, and writes. Every other node comes back as a new one:
    p2pcity init in an empty directory, then p2pcity raft add with its card.

    \b
    With --json one document says the same, and nothing is asked:
      is_recovered          false without the network's name: nothing was written
      epoch, index, term    the next epoch and the entry that begins it (null until then)
      last_index, last_term, height, time, head
                            where this node's log and its last block stand
      commit_index, height_committed
                            what is known to be committed
      kept                  entries, blocks, transactions kept beyond commit_index
      may_be_lost           after_index, after_height: whatever was committed beyond them
      left_out              the nodes that have to come back as new ones
      network, network_id, node, peer_id
                            which city, and which node goes on
    """
    from p2pcity.cli.stopped_node import stopped_node
    from p2pcity.ledger import recovery_marker
    from p2pcity.ledger.base_incoming import open_installed
    from p2pcity.ledger.segment_log import SegmentLog
    from p2pcity.ordering import recovery

    with (
        stopped_node(config_file) as node,
        contextlib.closing(open_installed(node.directory.base)[0]) as bases,
    ):
        raft_log = SegmentLog.open(
            node.directory.log, start=bases.start, may_begin_anew=bases.is_given
        )
        try:
            if raft_log.holes:
                raise ConfigError(
                    f"the log in {node.directory.log} is damaged",
                    remedy="Recover on another node, or run `p2pcity check` to see what is wrong.",
                )
            if recovery_marker.finish(node.directory.recovery_marker, raft_log):
                click.echo("an earlier recovery had been interrupted; it is finished now", err=True)
            raft_log.bind_network(node.genesis.network)
            found = recovery.survey(node.genesis, raft_log, bases.head)
            recovery.check_recoverable(found, node.key, raft_log.incarnation)
            told = _survey_document(node, found)
            if not is_json:
                _show(told)
            elif confirmed != node.genesis.name:
                print_json("raft-recover", told)
            _confirm(node.genesis.name, confirmed, may_ask=not is_json)
            now_ms = time.time_ns() // 1_000_000
            entry, hard_state = recovery.begin_epoch(found, node.key, raft_log.incarnation, now_ms)
            marker = node.directory.recovery_marker
            recovery_marker.write(marker, raft_log, entry, hard_state)
        finally:
            raft_log.close()
    if is_json:
        begun = {"is_recovered": True, "index": entry.index, "term": entry.term}
        print_json("raft-recover", {**told, **begun})
        return
    print(f"epoch {told['epoch']} begins at index {entry.index}: start this node, it decides alone")
    print(
        "then let every other node come back as a new one: p2pcity init in an empty directory, "
        "p2pcity raft add with its card here; never start an old directory's node for this city"
    )


def _survey_document(node: StoppedNode, found: Survey) -> dict[str, Any]:
    """What this node has, and what may be lost: all that both the text and --json say."""
    from p2pcity.crypto.keys import peer_id
    from p2pcity.ordering.recovery import others

    genesis, tip = node.genesis, found.tip
    own = found.state.nodes[node.key]
    return {
        "network": genesis.name,
        "network_id": genesis.network.hex(),
        "node": f"{own.member}/{own.name}",
        "peer_id": peer_id(node.key),
        "is_recovered": False,
        "epoch": found.state.epoch + 1,
        "index": None,
        "term": None,
        "last_index": found.last_index,
        "last_term": found.last_term,
        "height": tip.height,
        "time": _time(tip.time_ms),
        "head": tip.hash.hex(),
        "commit_index": found.hard_state.commit,
        "height_committed": found.height_committed,
        "kept": {
            "entries": found.kept_entries,
            "blocks": tip.height - found.height_committed,
            "transactions": found.kept_transactions,
        },
        "may_be_lost": {"after_index": found.last_index, "after_height": tip.height},
        "left_out": list(others(found, node.key)),
    }


def _show(told: Mapping[str, Any]) -> None:
    kept, lost = told["kept"], told["may_be_lost"]
    print_pairs(
        [
            ("network", f"{told['network']} ({told['network_id']})"),
            ("node", f"{told['node']} ({told['peer_id']})"),
            ("epoch", f"{told['epoch'] - 1}, then {told['epoch']}"),
            ("last index", f"{told['last_index']} of term {told['last_term']}"),
            ("last block", f"height {told['height']}, {told['time']}, {told['head']}"),
            (
                "known committed",
                f"index {told['commit_index']}, height {told['height_committed']}",
            ),
            ("left out", ", ".join(told["left_out"]) or "nobody"),
        ]
    )
    print(
        f"KEPT though not known to be committed: {kept['entries']} entries "
        f"({kept['blocks']} blocks, {kept['transactions']} transactions)"
    )
    print(
        f"LOST: whatever was committed beyond index {lost['after_index']}, "
        f"after height {lost['after_height']}. "
        "A client may have been told that it is committed."
    )
    print(
        "Of all nodes that are left, recover the one with the greatest last term, and of those the "
        "one with the greatest last index. If a majority of the orderers can be started again, "
        "start them, and do not recover."
    )


def _time(time_ms: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time_ms / 1000))


def _confirm(name: str, confirmed: str | None, *, may_ask: bool) -> None:
    if confirmed is None and may_ask and sys.stdin.isatty():
        confirmed = click.prompt("The network's name, to go on", default="", show_default=False)
    if confirmed != name:
        raise ConfigError(
            "nothing was changed: the network's name was not given",
            remedy=f"Accept the loss with --yes-lose-what-is-missing {name!r}.",
        )
