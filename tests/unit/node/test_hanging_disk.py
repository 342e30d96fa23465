"""A disk that stands still under the ordering loop: it is said, and nothing piles up meanwhile."""

import os
import threading
from pathlib import Path

import pytest
import trio

from p2pcity.wire import raft as raft_wire
from p2pcity.wire.raft import Heartbeat
from tests.unit.node.test_ordering_loop import Case


@pytest.mark.scenario("A13", tier="U")
async def test_a_disk_that_hangs_is_told_and_the_core_left_alone(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(tmp_path)
    nursery.start_soon(case.run)
    await case.wait(lambda: case.loop.raw_node.is_leader and case.committed)
    assert case.loop.hang_s == 0
    answers = threading.Event()
    sync = os.fdatasync

    def hang(descriptor: int) -> None:
        answers.wait()
        sync(descriptor)

    monkeypatch.setattr(os, "fdatasync", hang)
    try:
        case.put(1)
        case.loop.wake()
        await case.wait(lambda: case.loop.hang_s > 0)
        await case.wait(lambda: case.loop._is_deaf)
        heartbeat = raft_wire.encode(Heartbeat(term=1, commit=0))
        heard: list[str] = []
        monkeypatch.setattr(case.loop.raw_node, "step", lambda sender, _: heard.append(sender))
        # It is a message like any other, and a node that hears nothing does not blame the sender.
        assert case.loop.receive("b", heartbeat)
        assert (heard, case.tip.height) == ([], 0)
    finally:
        answers.set()
    await case.wait(lambda: case.tip.height == 1 and case.loop.hang_s == 0)
    assert case.loop.receive("c", heartbeat)
    assert heard == ["c"]
    await case.close()
