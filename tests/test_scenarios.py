"""The table of scenarios is what the tests say, and what is missing is said openly."""

from tests.recording import with_case
from tests.scenario_ids import MISSING, REQUIRED, SCENARIOS
from tests.scenarios import TABLE, TESTS, find_missing, find_shown, read_results, table


def test_the_table_is_up_to_date() -> None:
    """`python -m tests.scenarios` writes it anew."""
    assert TABLE.read_text(encoding="utf-8") == table(find_shown(), read_results())


def test_only_what_is_listed_is_missing() -> None:
    """A line of MISSING goes when a test comes; none is added."""
    assert find_missing(find_shown()) == MISSING


def test_every_required_id_is_known() -> None:
    assert len(SCENARIOS) == 98
    assert len(REQUIRED) == len(set(REQUIRED)) == 55
    assert set(REQUIRED) <= set(SCENARIOS)


def test_recorded_tests_exist() -> None:
    """A test that was renamed takes its result with it."""
    for test in read_results():
        path, *names = test.split("::")
        assert f"def {names[-1]}(" in (TESTS / path).read_text(encoding="utf-8"), test


def test_none_that_shows_a_required_id_failed_last() -> None:
    results = read_results()
    required = [shown.test for shown in find_shown() if shown.scenario in REQUIRED]
    assert not [x for x in required if results.get(x, {}).get("outcome", "passed") != "passed"]


def test_a_test_is_as_good_as_its_worst_case_and_as_old_as_its_oldest() -> None:
    leader = {"outcome": "passed", "seconds": 7, "date": "2026-11-25", "commit": "a"}
    follower = {"outcome": "failed", "seconds": 5, "date": "2026-11-30", "commit": "b"}
    known = with_case(with_case({}, "leader", leader), "follower", follower)
    said = {name: known[name] for name in leader}
    assert said == {"outcome": "failed", "seconds": 12, "date": "2026-11-25", "commit": "a"}
    # Run again, one case takes its own place only.
    again = with_case(known, "follower", {**follower, "outcome": "passed"})
    assert (again["outcome"], again["commit"], again["cases"]["leader"]) == ("passed", "a", leader)
