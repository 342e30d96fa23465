"""The watchdog's rule by a table, and the thread's deeds with a clock of its own."""

import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import structlog
import trio
from structlog.testing import capture_logs

from p2pcity.ledger.writer import WriterThread
from p2pcity.node import watcher as watcher_module
from p2pcity.node.systemd import Notifier
from p2pcity.node.vitals import LOOP, Vitals, transferred_bytes
from p2pcity.node.watchdog import Gauge, Judge, Verdict
from p2pcity.node.watcher import Watcher, stacks

MOVES, SLOW, STANDS = Verdict.MOVES, Verdict.SLOW, Verdict.STANDS

# A look: the time in s, the gauge's count, whether it is due; and what is found. The limit is 45 s.
TABLE = {
    "what moves": [(0, 1, True, MOVES), (30, 2, True, MOVES), (60, 3, True, MOVES)],
    "what has nothing to do": [(0, 1, False, MOVES), (50, 1, False, MOVES), (99, 1, False, MOVES)],
    "what stops": [
        (0, 1, True, MOVES),
        (15, 1, True, MOVES),
        (16, 1, True, SLOW),
        (45, 1, True, SLOW),
        (46, 1, True, STANDS),
    ],
    "what goes on at the last moment": [
        (0, 1, True, MOVES),
        (44, 1, True, SLOW),
        (45, 2, True, MOVES),
        (80, 2, True, SLOW),
        (90, 3, True, MOVES),
    ],
    "what gets due late": [
        (0, 1, False, MOVES),
        (40, 1, False, MOVES),
        (41, 1, True, MOVES),
        (80, 1, True, SLOW),
        (86, 1, True, STANDS),
    ],
    "what had nothing to do for a moment": [
        (0, 1, True, MOVES),
        (40, 1, True, SLOW),
        (41, 1, False, MOVES),
        (80, 1, True, SLOW),
    ],
    "a clock that goes back": [(50, 1, True, MOVES), (0, 1, True, MOVES), (45, 1, True, SLOW)],
}


@pytest.mark.scenario("H7", tier="U")
@pytest.mark.parametrize("name", TABLE)
def test_the_rule(name: str) -> None:
    judge = Judge(limit_s=45.0, period_s=60.0)
    for now_s, count, is_due, expected in TABLE[name]:
        verdict, stalls = judge.look(now_s, [Gauge("it", count, is_due)])
        assert verdict is expected, f"at {now_s} s"
        assert bool(stalls) == (expected is not MOVES)


def test_one_that_stands_is_enough_and_the_oldest_is_named_first() -> None:
    judge = Judge(limit_s=45.0, period_s=60.0)
    judge.look(0, [Gauge("a", 1), Gauge("b", 1), Gauge("c", 1)])
    judge.look(20, [Gauge("a", 2), Gauge("b", 1), Gauge("c", 2)])
    verdict, stalls = judge.look(50, [Gauge("a", 2), Gauge("b", 1, about="in save"), Gauge("c", 3)])
    assert verdict is STANDS
    assert [str(stall) for stall in stalls] == [
        "b stands still for 50 s (in save)",
        "a stands still for 30 s",
    ]


def test_a_process_that_was_stopped_is_not_blamed_for_it() -> None:
    judge = Judge(limit_s=45.0, period_s=1.0)
    judge.look(0, [Gauge("it", 1)])
    # Stopped for ten minutes: nobody could move.
    assert judge.look(600, [Gauge("it", 1)]) == (MOVES, ())
    verdict = MOVES
    for now_s in range(601, 644):
        verdict, _ = judge.look(now_s, [Gauge("it", 1)])
    assert verdict is STANDS


def test_a_gauge_that_is_gone_is_forgotten() -> None:
    judge = Judge(limit_s=45.0, period_s=60.0)
    judge.look(0, [Gauge("it", 1)])
    assert judge.look(40, [])[0] is MOVES
    assert judge.look(80, [Gauge("it", 1)])[0] is MOVES


@dataclass
class Told(Notifier):
    """A notifier that keeps what it was given."""

    said: list[str] = field(default_factory=list)

    def send(self, *lines: str) -> bool:
        self.said.append("|".join(lines))
        return True

    def status(self, text: str, *lines: str) -> bool:
        return self.send(*lines, f"STATUS={text}")


class Case:
    """A watcher whose looks are told one by one."""

    def __init__(self, vitals: Vitals) -> None:
        self.now_s = 0.0
        self.told = Told()
        self.vitals = vitals
        self.watcher = Watcher(self.told, vitals, limit_s=45.0, clock=lambda: self.now_s)

    def look(self, times: int = 1) -> list[str]:
        """Look once a second; what was said."""
        for _ in range(times):
            self.now_s += 1
            self.watcher.look()
        said, self.told.said[:] = list(self.told.said), []
        return said


def make_vitals(transferred: Callable[[], int] = lambda: 0) -> Vitals:
    return Vitals(limit_s=45.0, transferred_bytes=transferred)


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> None:
    # A logger keeps the set-up that it met first.
    monkeypatch.setattr(watcher_module, "_logger", structlog.get_logger("test"))


@pytest.mark.usefixtures("logged")
async def test_a_loop_that_stands_still_is_accused_and_then_ended() -> None:
    case = Case(make_vitals())
    case.vitals.is_starting = False
    beat = case.vitals.beat()
    beat.send(None)  # the loop turned once, and then no more
    with capture_logs() as lines:
        assert set(case.look(16)) == {"WATCHDOG=1"}
        assert case.look(1) == ["WATCHDOG=1", f"STATUS={LOOP} stands still for 16 s"]
        while "WATCHDOG=1" in (said := case.look()):
            assert case.now_s < 60
        assert case.now_s == 47
        assert said == [f"STATUS={LOOP} stands still for 46 s"]
        assert case.look()[0] == "WATCHDOG=trigger"
    beat.close()
    assert [line["event"] for line in lines] == ["stands_still", "watchdog_not_fed"]
    assert lines[-1]["reason"] == f"{LOOP} stands still for 46 s"
    assert any("test_watchdog" in frame for frame in lines[-1]["stacks"]["MainThread"])
    assert len(json.dumps(lines[-1])) < 4096


@pytest.mark.usefixtures("logged")
async def test_a_thread_that_hangs_is_accused_and_one_that_answers_is_not(
    nursery: trio.Nursery,
) -> None:
    case = Case(make_vitals())
    case.vitals.is_starting = False
    nursery.start_soon(case.vitals.beat)
    slow, quick = case.vitals.make_thread("slow", 4), case.vitals.make_thread("quick", 4)
    goes_on, begun = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        goes_on.wait()

    nursery.start_soon(slow.run, hang)
    await trio.to_thread.run_sync(begun.wait)
    said: list[str] = []
    with capture_logs() as lines:
        while case.now_s < 44:
            await quick.run(os.getpid)
            case.vitals._beats += 1
            said += case.look()
        assert set(said) == {"WATCHDOG=1"}
        for _ in range(2):
            case.vitals._beats += 1
            said += case.look()
        assert said[-1] == "WATCHDOG=1"
        case.vitals._beats += 1
        assert case.look() == []
        goes_on.set()
        await slow.run(os.getpid)
        case.vitals._beats += 1
        # It answered in the last moment: it is fed again.
        assert case.look() == ["WATCHDOG=1"]
    assert [line["event"] for line in lines] == ["stands_still", "watchdog_not_fed", "goes_on"]
    assert "thread p2pcity-slow stands still" in lines[1]["reason"]
    assert "hang" in lines[1]["reason"]
    assert any(frame.endswith(" hang") for frame in lines[1]["stacks"]["p2pcity-slow"])
    await slow.close()
    await quick.close()
    nursery.cancel_scope.cancel()


def test_a_start_gets_more_time_as_long_as_it_reads(logged: None) -> None:
    moved = iter(range(10_000))
    case = Case(make_vitals(lambda: next(moved)))
    assert set(case.look(100)) == {"WATCHDOG=1|EXTEND_TIMEOUT_USEC=45000000"}
    stuck = Case(make_vitals())
    assert stuck.look(48)[-2] == "WATCHDOG=trigger"


@dataclass
class Applying:
    applied_index: int = 7
    target_index: int = 7
    alarm: str = ""


@pytest.mark.parametrize(
    ("apply", "is_due"),
    [
        (Applying(), False),
        (Applying(target_index=9), True),
        # A full disk: a restart makes no room.
        (Applying(target_index=9, alarm="no room"), False),
    ],
)
def test_applying_is_due_when_there_is_something_to_apply(apply: Applying, is_due: bool) -> None:
    vitals = make_vitals()
    vitals.follow(apply)
    [_, gauge] = vitals.gauges()
    assert (gauge.name, gauge.is_due) == ("applying", is_due)
    vitals.begin()
    assert len(vitals.gauges()) == 1


async def test_a_writer_tells_what_it_does(thread: WriterThread, nursery: trio.Nursery) -> None:
    assert (thread.is_busy, thread.doing, thread.finished_count) == (False, "", 0)
    goes_on, begun = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        goes_on.wait()

    nursery.start_soon(thread.run, work)
    await trio.to_thread.run_sync(begun.wait)
    assert thread.is_busy
    assert thread.doing.endswith("work")
    goes_on.set()
    await thread.run(os.getpid)
    assert thread.finished_count >= 1


def test_the_thread_looks_by_itself(logged: None) -> None:
    looked = threading.Event()

    def moved() -> int:
        looked.set()
        return transferred_bytes()

    watcher = Watcher(Told(), make_vitals(moved), limit_s=1.0)
    watcher.start()
    assert looked.wait(30)
    assert next(iter(stacks(["thread p2pcity-watcher"]))) == "p2pcity-watcher"
    watcher.close()
    assert "p2pcity-watcher" not in stacks(["thread p2pcity-watcher"])


def test_what_was_read_is_counted() -> None:
    before = transferred_bytes()
    with open(__file__, "rb") as file:
        size = len(file.read())
    assert transferred_bytes() >= before + size
