"""`p2pcity check`: is everything on disk what it should be?"""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path

import click

from p2pcity.cli import exit_codes
from p2pcity.cli.node_address import config_option
from p2pcity.cli.output import json_option, print_json, print_pairs, print_verdict
from p2pcity.cli.stopped_node import show_progress, stopped_node


@click.command()
@config_option
@json_option
def check(config_file: Path | None, is_json: bool) -> int:
    """Check the whole ledger of a stopped node.

    Every record, signature, root and view is checked; nothing is changed. Exit code 5 when
    something is wrong.
    """
    from p2pcity.ledger.check import check as check_ledger

    with (
        stopped_node(config_file) as node,
        tempfile.TemporaryDirectory(prefix="check-", dir=node.directory.path) as scratch,
    ):
        progress = (lambda done, last: None) if is_json else show_progress
        report = check_ledger(node.directory, node.genesis, Path(scratch), progress)
    code = 0 if report.is_sound else exit_codes.CHECK_SAYS_NO
    facts = {
        "height": report.height,
        "head": report.head.hex(),
        "tree_size": report.tree_size,
        "root": report.root.hex(),
        "events": report.events,
        "committed_index": report.committed,
        "last_index": report.last_index,
    }
    if is_json:
        findings = [asdict(item) for item in report.findings]
        outcomes = dict(report.outcomes)
        print_json(
            "check",
            {
                "is_sound": report.is_sound,
                **facts,
                "outcomes": outcomes,
                "findings": findings,
                "notes": report.notes,
            },
        )
        return code
    print_pairs(list(facts.items()))
    for outcome, count in report.outcomes.items():
        print(f"{count} transactions {outcome}")
    print_verdict(report.notes, [(item.what, item.remedy) for item in report.findings])
    return code
