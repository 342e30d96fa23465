"""The bench's arithmetic: percentiles, what a node spent, and the verdict on the ledgers."""

from dataclasses import replace

import pytest

from p2pcity.cli.bench import figures
from p2pcity.cli.bench.figures import NodeReading, PhaseFigures, judge, node_figures, percentile
from p2pcity.cli.bench.job import Job, Result
from p2pcity.cli.bench.phases import plan

BEFORE = NodeReading("node1", True, 3, "aa", "bb", 10, 640, 5.0, 100, 50, 0.4, 1_000)
AFTER = NodeReading("node1", True, 9, "cc", "dd", 30, 1_920, 7.0, 150, 90, 0.5, 21_480)


def make_result(taken: int, unanswered: int = 0) -> Result:
    return Result((1.0, 3.0), taken, 0, unanswered, 100.0, 102.0, 0.1, {})


def make_phase(**changes: object) -> PhaseFigures:
    phase = PhaseFigures(
        name="singles committed",
        wait="committed",
        rate=0.0,
        connections=8,
        transactions_per_request=64,
        events_per_transaction=1,
        transactions=1_000,
        events=1_000,
        refused=0,
        unanswered=0,
        seconds=2.0,
        settle_s=0.1,
        transactions_per_s=500.0,
        events_per_s=500.0,
        answered_per_s=500.0,
        p50_ms=10.0,
        p99_ms=20.0,
        clients_cpu_s=0.1,
        nodes=(node_figures(BEFORE, AFTER, 1_280, 4.0),),
        reasons={},
    )
    return replace(phase, **changes)  # type: ignore[arg-type]  # the names are the dataclass's


@pytest.mark.parametrize(
    ("values", "fraction", "expected"),
    [
        ([], 0.5, None),
        ([7.0], 0.99, 7.0),
        ([3.0, 1.0, 2.0], 0.5, 2.0),
        ([float(value) for value in range(1, 101)], 0.99, 99.0),
        ([float(value) for value in range(1, 101)], 0.5, 50.0),
        ([float(value) for value in range(1, 102)], 0.99, 100.0),
    ],
)
def test_percentile_is_the_nearest_rank(
    values: list[float], fraction: float, expected: float | None
) -> None:
    assert percentile(values, fraction) == expected


def test_node_figures_are_differences_an_event_and_a_second() -> None:
    spent = node_figures(BEFORE, AFTER, 1_280, 4.0)
    assert spent.cpu_s_per_1000_events == pytest.approx(2.0 * 1000 / 1_280)
    assert spent.syncs_per_s == 10.0
    assert spent.log_bytes_per_event == 16.0
    assert spent.rss_bytes == 150


def test_node_figures_without_an_event_and_without_a_log() -> None:
    spent = node_figures(BEFORE, replace(AFTER, log_bytes=None), 0, 0.0)
    assert spent.cpu_s_per_1000_events == 0.0
    assert spent.syncs_per_s == 0.0
    assert spent.log_bytes_per_event is None


def test_all_is_well_when_every_ledger_grew_by_what_was_taken() -> None:
    assert judge([BEFORE] * 3, [AFTER] * 3, make_result(20), 64) == ()


def test_what_went_unanswered_may_be_there_or_not() -> None:
    for unanswered in (0, 3, 20):
        assert judge([BEFORE], [AFTER], make_result(20 - unanswered, unanswered), 64) == ()
    assert judge([BEFORE], [AFTER], make_result(20, 5), 64) == ()


def test_a_lost_transaction_is_a_problem() -> None:
    [problem] = judge([BEFORE], [AFTER], make_result(21), 64)
    assert problem == "node1 lost 1 of 21 transactions"


def test_a_transaction_that_nobody_sent_is_a_problem() -> None:
    [problem] = judge([BEFORE], [AFTER], make_result(17, 2), 64)
    assert problem == "node1 has 1 transactions that nobody sent"


def test_events_that_do_not_fit_their_transactions_are_a_problem() -> None:
    [problem] = judge([BEFORE], [replace(AFTER, events=1_919)], make_result(20), 64)
    assert "1279 events" in problem


@pytest.mark.parametrize("changes", [{"head": "ff"}, {"root": "ff"}, {"height": 8}])
def test_unequal_ledgers_are_a_problem(changes: dict[str, object]) -> None:
    other = replace(AFTER, name="node2", **changes)  # type: ignore[arg-type]  # its own names
    [problem] = judge([BEFORE] * 2, [AFTER, other], make_result(20), 64)
    assert problem.startswith("the nodes do not have one ledger")


def test_a_row_has_a_cell_under_each_head() -> None:
    assert len(figures.row(make_phase())) == len(figures.HEADS)
    assert len(figures.row(make_phase(p50_ms=None, p99_ms=None))) == len(figures.HEADS)


def test_saturation_is_compared_by_events_and_schedules_by_latency() -> None:
    ours, theirs = make_phase(), make_phase(name="etcd singles", events_per_s=1_000.0)
    assert figures.ratio_line(ours, theirs).endswith("0.50 times")
    ours, theirs = make_phase(rate=50.0), make_phase(rate=50.0, p50_ms=4.0)
    assert figures.ratio_line(ours, theirs).endswith("2.50 times as long")


def test_a_phase_without_answers_is_compared_with_nothing() -> None:
    assert "nothing to compare" in figures.ratio_line(make_phase(), make_phase(events_per_s=0.0))
    ours = make_phase(rate=50.0, p50_ms=None)
    assert "nothing to compare" in figures.ratio_line(ours, make_phase(rate=50.0))


def test_results_of_clients_are_merged() -> None:
    merged = Result.merge(
        [
            Result((1.0,), 1, 2, 3, 10.0, 11.0, 0.5, {"queue-full": 2}),
            Result((2.0, 3.0), 2, 1, 0, 9.0, 12.0, 0.5, {"queue-full": 1, "size": 1}),
        ]
    )
    assert merged == Result((1.0, 2.0, 3.0), 3, 3, 3, 9.0, 12.0, 1.0, {"queue-full": 3, "size": 1})


def test_jobs_and_results_survive_their_line() -> None:
    job = Job("p2pcity", "r", 1, 2, ("/a", "/b"), 4, 10, 64, 1, 3.0, 50.0, "accepted", "00", "k")
    assert Job.from_json(job.to_json()) == job
    assert "\n" not in job.to_json()
    result = make_result(3, 1)
    assert Result.from_json(result.to_json()) == result


def test_the_plan_measures_both_waits_on_the_same_load() -> None:
    phases = plan(None, 20.0, False)
    accepted = [phase for phase in phases if phase.wait == "accepted"]
    committed = [phase for phase in phases if phase.wait == "committed"]
    assert [replace(phase, wait="", name="") for phase in accepted] == [
        replace(phase, wait="", name="") for phase in committed
    ]
    assert {phase.rate for phase in phases} == {0.0, 50.0, 200.0}
    assert {phase.events_per_transaction for phase in phases} == {1, 64}
    assert {phase.rate for phase in plan(None, 3.0, True)} == {0.0, 50.0}
    assert {phase.rate for phase in plan(20.0, 3.0, False)} == {0.0, 20.0}
    assert len({phase.name for phase in phases}) == len(phases)
