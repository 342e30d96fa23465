"""What doctor makes of what nodes say, by table; real nodes are in integration/test_doctor.py."""

from typing import Any

import pytest

from p2pcity.cli.doctor import findings
from p2pcity.cli.doctor.findings import Finding


def row(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "peer": f"12D3{name}",
        "name": name,
        "is_connected": True,
        "refusal": "",
        "clock_offset_ms": 3,
        "is_voter": True,
        "is_reachable": True,
        "is_self": False,
        "trails": 0,
        "incarnation": "aa",
        **changes,
    }


def raft(*rows: dict[str, Any], **changes: Any) -> dict[str, Any]:
    fine = {"leader": "12D3a", "has_quorum": True, "tolerates_more_failures": 1}
    return {"nodes": list(rows), **fine, **changes}


def status(**changes: Any) -> dict[str, Any]:
    return {
        "alarms": [],
        "node": {"incarnation": "aa"},
        "lag": {"blocks": 0, "seconds": 0.0},
        "mempool": {"transactions": 0, "bytes": 0, "bytes_max": 1000},
        "disk": {"sync_ms_p99": 2.0},
        "raft": {"commit_index": 7},
        **changes,
    }


AWAY = {"is_reachable": False}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (findings.of_quorum(raft(row("a"), row("b"), row("c"))), []),
        (findings.of_quorum(raft(row("a"), row("b"), row("c", **AWAY))), ["warning quorum"]),
        (findings.of_quorum(raft(row("a"), row("b", **AWAY), row("c", **AWAY))), ["error quorum"]),
        (findings.of_quorum(raft(row("a"), row("b"), leader=None)), ["error quorum"]),
        (findings.of_quorum(raft(row("a"), row("b", trails=5000))), ["warning follower"]),
        # Who does not vote is not missed by the quorum.
        (findings.of_quorum(raft(row("a"), row("b", is_voter=False, **AWAY))), []),
        (findings.of_identity(status(), raft(row("a", is_self=True))), []),
        (
            findings.of_identity(status(), raft(row("a", is_self=True, incarnation="bb"))),
            ["error identity"],
        ),
        (findings.of_status(status()), []),
        (findings.of_status(status(lag={"blocks": 101, "seconds": 9.0})), ["error lag"]),
        (findings.of_status(status(disk={"sync_ms_p99": 101.0})), ["warning sync"]),
        (
            findings.of_status(
                status(mempool={"transactions": 9, "bytes": 901, "bytes_max": 1000})
            ),
            ["error mempool"],
        ),
        (findings.of_descriptors(80, 100), []),
        (findings.of_descriptors(86, 100), ["error descriptors"]),
        (findings.of_peers({"peers": []}), []),
        (findings.of_peers({"peers": [row("a", clock_offset_ms=-999)]}), []),
        (findings.of_peers({"peers": [row("a", clock_offset_ms=-1000)]}), ["warning clock"]),
        (findings.of_peers({"peers": [row("a", clock_offset_ms=90_000)]}), ["error clock"]),
        (
            findings.of_peers({"peers": [row("a"), row("b"), row("c", clock_offset_ms=9000)]}),
            ["warning clock"],
        ),
        (
            findings.of_peers({"peers": [row("a", is_connected=False, clock_offset_ms=None)]}),
            ["error isolated"],
        ),
        *(
            (
                findings.of_peers(
                    {"peers": [row("a"), row("b", is_connected=False, refusal=reason)]}
                ),
                ["error peer"],
            )
            for reason in ("wrong-network", "protocol-too-old", "protocol-too-new", "banned")
        ),
        (findings.of_reach("a", "/ip4/1", "timed out", is_connected=True, is_inbound=False), []),
        (
            findings.of_reach("a", "/ip4/1", "timed out", is_connected=True, is_inbound=True),
            ["warning reach"],
        ),
        (
            findings.of_reach("a", "/ip4/1", "timed out", is_connected=False, is_inbound=False),
            ["error reach"],
        ),
        (findings.of_own_reach({}), []),
        (findings.of_own_reach({"/ip4/1": "timed out", "/ip4/2": ""}), []),
        (findings.of_own_reach({"/ip4/1": "timed out", "/ip4/2": "refused"}), ["warning reach"]),
    ],
)
def test_what_is_said(found: list[Finding], expected: list[str]) -> None:
    found = list(found)
    assert [f"{item.severity} {item.check}" for item in found] == expected
    assert all(item.cause and item.remedy for item in found)


def test_what_waits_and_does_not_move_is_stuck() -> None:
    waits = status(mempool={"transactions": 2, "bytes": 20, "bytes_max": 1000})
    assert [item.check for item in findings.of_progress(waits, waits)] == ["mempool"]
    later = {**waits, "raft": {"commit_index": 8}}
    assert list(findings.of_progress(waits, later)) == []
    assert list(findings.of_progress(status(), waits)) == []


def test_an_alarm_is_told_unless_something_explains_it() -> None:
    alarms = ["no leader is known: an election is under way", "the moon is wrong: turn it"]
    told = status(alarms=alarms)
    assert [item.check for item in findings.of_alarms(told, [])] == ["quorum", "alarm"]
    explained = [Finding("quorum", "error", "two are away", "start them")]
    [left] = findings.of_alarms(told, explained)
    assert (left.cause, left.remedy) == ("the moon is wrong", "turn it")
