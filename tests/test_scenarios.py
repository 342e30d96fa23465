"""The table of scenarios is what the tests say, and what is missing is said openly."""

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
