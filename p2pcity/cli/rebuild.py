"""`p2pcity rebuild`: the views, made anew from the log."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from p2pcity.cli.node_address import config_option
from p2pcity.cli.output import json_option, print_json
from p2pcity.cli.stopped_node import show_progress, stopped_node


@click.command()
@config_option
@json_option
def rebuild(config_file: Path | None, is_json: bool) -> None:
    """Make the views of a stopped node anew.

    views.db is deleted and made again from the segment log, every signature verified; what was
    pruned comes from the base.
    """
    from p2pcity.ledger.base_store import BaseStore
    from p2pcity.ledger.offline_log import OfflineLog
    from p2pcity.ledger.rebuild import rebuild as rebuild_views

    with (
        stopped_node(config_file) as node,
        contextlib.closing(BaseStore.open(node.directory.base)) as bases,
        contextlib.closing(
            OfflineLog(node.directory.log, bases.start, may_begin_anew=bases.is_given)
        ) as raft_log,
    ):
        progress = (lambda done, last: None) if is_json else show_progress
        committed = raft_log.hard_state.commit
        views = rebuild_views(
            node.directory.views, node.genesis, raft_log, committed, progress, bases=bases
        )
        height, head, index = views.height, views.head.hex(), views.applied_index
        views.close()
    if is_json:
        print_json("rebuild", {"height": height, "head": head, "applied_index": index})
    else:
        print(f"rebuilt up to index {index}: height {height}, head {head}")
