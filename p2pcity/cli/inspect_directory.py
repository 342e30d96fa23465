"""`p2pcity inspect`: a dead node's data directory, read-only."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from p2pcity.cli import exit_codes
from p2pcity.cli.output import (
    json_option,
    print_json,
    print_pairs,
    print_table,
    print_verdict,
    show_bytes,
)
from p2pcity.errors import ConfigError
from p2pcity.node.places import CONFIG_NAME

if TYPE_CHECKING:
    from p2pcity.ledger.inspection import Inspection

_LISTED_MAX: Final = 10
"""Files of the log that the text lists, the newest; --json has them all."""


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@json_option
def inspect(directory: Path, is_json: bool) -> int:
    """Show what lies in a stopped node's data directory.

    DIR is the data directory itself, or a node's directory. Nothing is written, and neither
    configuration nor keys nor genesis are needed. Exit code 5 when something is damaged, 12 while
    a node runs on it. `p2pcity check` looks further: at signatures, and at each row of the views.

    \b
    With --json:
      is_sound      whether nothing is damaged; findings say what is, where, and what to do
      formats       of log, outbox and views
      network, incarnation, peer
                    whose directory it is
      hard_state    term, vote, commit
      log           first_index, last_index, last_term, bytes, files, and torn_tail: null, or
                    what the next start cuts (file, offset, bytes, reason)
      base          null, or height and index up to which blocks were pruned, records, is_given
      views         null, or height, head, applied_index, events, tree_size
      outbox        null, or pending, pending_bytes, settled
      last_stop     clean, not-clean, or never-started
      free_bytes    of the disk
      notes         worth knowing, and nothing wrong
    """
    from p2pcity.ledger.data_directory import DataDirectory
    from p2pcity.ledger.inspection import inspect as inspect_data

    found = inspect_data(DataDirectory(find_data(directory)))
    if is_json:
        print_json("inspect", _document(found))
    else:
        _print(found, _document(found))
    return 0 if found.is_sound else exit_codes.CHECK_SAYS_NO


def find_data(path: Path) -> Path:
    """Return the data directory that `path` is, or that the node's directory `path` has.

    Raises ConfigError when it is neither.
    """
    if os.path.isdir(path / "log"):
        return path
    if os.path.isfile(path / CONFIG_NAME):
        from p2pcity.node.config_reading import load

        return load(path / CONFIG_NAME, environment={}).config.node.data_dir
    if os.path.isdir(path / "data" / "log"):
        return path / "data"
    raise ConfigError(
        f"{path} is no data directory: it has no log/, no data/log/ and no {CONFIG_NAME}",
        remedy="Name the directory that node.data_dir names. If the log is lost: "
        "`p2pcity init DIR --rejoin`.",
    )


def _document(found: Inspection) -> dict[str, Any]:
    log, base, views, outbox = found.log, found.base, found.views, found.outbox
    network, hard_state = found.network, None if log is None else log.hard_state
    last_stop = {True: "clean", False: "not-clean", None: "never-started"}
    return {
        "directory": str(found.directory.path),
        "is_sound": found.is_sound,
        "formats": found.formats,
        "network": None if network is None else network.hex(),
        "incarnation": None if log is None else log.header.incarnation.hex(),
        "peer": found.peer,
        "hard_state": None
        if hard_state is None
        else {"term": hard_state.term, "vote": hard_state.vote, "commit": hard_state.commit},
        "log": _log(found),
        "base": None
        if base is None
        else {
            "height": base.head.height,
            "index": base.head.index,
            "records": base.head.records,
            "is_given": base.is_given,
        },
        "views": None
        if views is None
        else {
            "height": views.tip.height,
            "head": views.tip.hash.hex(),
            "applied_index": views.applied_index,
            "events": views.events,
            "tree_size": views.tip.frontier.size,
        },
        "outbox": None if outbox is None else outbox._asdict(),
        "last_stop": last_stop[found.is_clean],
        "free_bytes": found.free_bytes,
        "findings": [asdict(item) for item in found.findings],
        "notes": found.notes,
    }


def _log(found: Inspection) -> dict[str, Any]:
    files = [asdict(segment) for segment in found.segments]
    document: dict[str, Any] = {
        "first_index": None,
        "last_index": None,
        "last_term": None,
        "bytes": sum(segment.bytes for segment in found.segments),
        "files": files,
        "torn_tail": None,
    }
    if found.log is not None:
        index, report = found.log.index, found.log.report()
        document["first_index"] = index.start.index + 1
        document["last_index"] = index.last_index
        document["last_term"] = index.term(index.last_index)
        if report.bytes_cut:
            document["torn_tail"] = {
                "file": report.cut_file,
                "offset": report.cut_offset,
                "bytes": report.bytes_cut,
                "reason": report.cut_reason,
            }
    return document


def _print(found: Inspection, document: dict[str, Any]) -> None:
    log, hard_state, base = document["log"], document["hard_state"], document["base"]
    views, outbox = document["views"], document["outbox"]
    entries = (
        "none" if log["last_index"] is None else f"{log['first_index']} to {log['last_index']}"
    )
    if log["last_index"] is not None and log["last_index"] < log["first_index"]:
        entries = "none"
    print_pairs(
        [
            ("directory", document["directory"]),
            ("peer id", document["peer"]),
            ("network", document["network"]),
            ("incarnation", document["incarnation"]),
            ("formats", ", ".join(f"{name} {number}" for name, number in found.formats.items())),
            (
                "hard state",
                hard_state
                and f"term {hard_state['term']}, vote {hard_state['vote'] or 'none'}, "
                f"commit index {hard_state['commit']}",
            ),
            ("entries", f"{entries}, last term {log['last_term']}"),
            ("log", f"{len(log['files'])} files, {show_bytes(log['bytes'])}"),
            (
                "base",
                base
                and f"height {base['height']}, index {base['index']}, {base['records']} records",
            ),
            (
                "views",
                views
                and f"height {views['height']}, applied index {views['applied_index']}, "
                f"head {views['head'][:16]}…",
            ),
            (
                "outbox",
                outbox
                and f"{outbox['pending']} pending ({show_bytes(outbox['pending_bytes'])}), "
                f"{outbox['settled']} ended",
            ),
            ("last stop", document["last_stop"]),
            ("disk", f"{show_bytes(document['free_bytes'])} free"),
        ]
    )
    print()
    newest = log["files"][-_LISTED_MAX:]
    rows = [(file["name"], file["first_index"], show_bytes(file["bytes"])) for file in newest]
    print_table(["FILE", "FIRST", "SIZE"], rows)
    if len(newest) < len(log["files"]):
        print(f"and {len(log['files']) - len(newest)} older ones")
    print_verdict(found.notes, [(item.what, item.remedy) for item in found.findings])
