"""With TESTS_RECORD=1, what became of each long test goes into a file (see conftest.py).

tests/long_results.json has one line a test: outcome, date, commit and seconds of its last run
(all cases of a parametrized test together). `tests/scenarios.md` shows them.
"""

import datetime
import json
import subprocess
from typing import Any, Final

import pytest

from tests.scenarios import RESULTS, TESTS, read_results

_WORST: Final = ("passed", "skipped", "failed")


class Recorder:
    """Collects reports while tests run, and writes them down at the end."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, Any]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note one phase of one test."""
        if "long" not in report.keywords or (report.when != "call" and report.passed):
            return
        path, *names = report.nodeid.split("[")[0].split("::")
        test = "::".join([path.removeprefix("tests/"), *names])
        seen = self._seen.setdefault(test, {"outcome": "passed", "seconds": 0.0})
        seen["outcome"] = max(seen["outcome"], report.outcome, key=_WORST.index)
        seen["seconds"] += report.duration

    def pytest_sessionfinish(self) -> None:
        """Write what was seen into the file, beside what others saw before."""
        if not self._seen:
            return
        results = read_results()
        now = {"date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}", "commit": _commit()}
        for test, seen in self._seen.items():
            results[test] = {**seen, "seconds": round(seen["seconds"]), **now}
        lines = [f"  {json.dumps(test)}: {json.dumps(results[test])}" for test in sorted(results)]
        RESULTS.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def _commit() -> str:
    """The commit that is checked out; `-dirty` when files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=7"]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
