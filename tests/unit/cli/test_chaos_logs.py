"""Which lines of a node's log fail a run of chaos."""

import json
from pathlib import Path

from p2pcity.cli.chaos.course import errors_in
from p2pcity.ledger.segment_file import failed

EXPLAINED = (
    {"event": "stopped", "reason": "writing the log failed: No space left on device"},
    {"event": "apply_waits", "reason": "the disk is full: views.db: database or disk is full"},
    {"event": "stopped", "reason": "writing it failed", "remedy": "Make room on the disk of it."},
)
NOT_EXPLAINED = (
    {"event": "stopped", "reason": "the record on disk at index 7 is damaged"},
    {"event": "odd", "reason": "a namespace that nobody knows"},
)


def _log(*lines: object) -> str:
    text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    return "\n".join(text) + "\n"


def test_a_full_disk_explains_what_it_makes_nodes_write(tmp_path: Path) -> None:
    lines = [{"level": "critical", **fields} for fields in EXPLAINED]
    real = failed(tmp_path, "writing", OSError(28, "No space left on device"))
    lines.append({"level": "critical", "event": "stopped", "reason": str(real)})
    log = _log(*lines)
    assert errors_in(log, ["kill", "disk-full"]) == []
    assert len(errors_in(log, ["kill"])) == 3


def test_a_full_disk_does_not_explain_other_errors() -> None:
    for fields in NOT_EXPLAINED:
        log = _log({"level": "error", **fields})
        assert len(errors_in(log, ["disk-full"])) == 1
    log = _log({"level": "info", **NOT_EXPLAINED[0]}, '{"level": "err')
    assert errors_in(log, ["disk-full"]) == []


def test_nothing_explains_a_traceback() -> None:
    line = {"level": "error", "event": "odd", "exception": "Traceback: No space left on device"}
    log = _log("Traceback (most recent call last): the disk is full", line)
    assert len(errors_in(log, ["disk-full"])) == 2
