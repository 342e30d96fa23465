"""`p2pcity testnet scenario`: a short file in `make test`, all that are shipped as long tests."""

import json
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from p2pcity.cli.chaos import history
from p2pcity.cli.chaos.processes import Processes
from p2pcity.cli.scenario.reading import read
from tests.bad_input_city import clean_environment, command_line
from tests.json_schemas import check

pytestmark = pytest.mark.integration

SHIPPED: Final = sorted((Path(__file__).parents[2] / "testnet" / "scenarios").glob("*.toml"))
DEADLINE_S: Final = 420.0
SHORT: Final = """
title = "The leader is killed for three seconds."
[load]
lasts = "6s"
writers = 4
batch = 4
rate = 50
[[fault]]
kind = "kill"
on = "leader"
at = "500ms"
lasts = "3s"
[expect]
acknowledged_min = 80
ready_again_max = "1m"
logged = ["opened"]
"""
TOO_MUCH: Final = """
title = "Nothing happens, and that is too little."
[load]
lasts = "1s"
[expect]
acknowledged_min = 900_000
logged = ["none_such"]
"""


def scenario(file: Path, *arguments: object) -> tuple[int, str, str]:
    """Run the command; its exit code, and what it printed to both."""
    done = subprocess.run(
        command_line("testnet", "scenario", str(file), *map(str, arguments)),
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    print(done.stdout, done.stderr)
    return done.returncode, done.stdout, done.stderr


def report_of(printed: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(printed)
    assert check(report) == "testnet-scenario"
    return report


def unmet(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [line for line in report["expectations"] if not line["is_met"]]


def test_a_short_file_holds(tmp_path: Path) -> None:
    file, home = tmp_path / "short.toml", tmp_path / "net"
    file.write_text(SHORT, encoding="utf-8")
    code, printed, _ = scenario(file, "--json", "-o", home)
    report = report_of(printed)
    assert (code, unmet(report)) == (0, [])
    assert report["is_ok"]
    [fault] = report["faults"]
    assert (fault["kind"], fault["on"], fault["struck"]) == ("kill", "leader", 1)
    assert len(fault["nodes"]) == 1
    assert report["acknowledged"]["total"] >= 80
    # The rate is a bound, with a second that may be made up for and the last turn of each writer.
    sent = [o for o in history.read(home / "history.ndjson") if o.kind in ("submit", "accept")]
    span_s = (max(o.called_ns for o in sent) - min(o.called_ns for o in sent)) / 1e9
    assert 80 <= len({o.id for o in sent}) <= (span_s + 1) * 50 + 4 * 4


@pytest.mark.long
def test_a_file_that_expects_too_much_fails(tmp_path: Path) -> None:
    file = tmp_path / "short.toml"
    file.write_text(TOO_MUCH, encoding="utf-8")
    code, printed, _ = scenario(file, "-o", tmp_path / "again")
    assert code == 1
    failed = [line for line in printed.splitlines() if line.startswith("FAIL  ")]
    assert [line.split(":")[0] for line in failed] == [
        "FAIL  acknowledged",
        "FAIL  logged none_such",
    ]
    assert "at least 900,000" in failed[0]


def test_a_file_that_is_wrong_starts_nothing(tmp_path: Path) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(SHORT.replace("3s", "3h"), encoding="utf-8")
    code, printed, error = scenario(file, "-o", tmp_path / "net")
    assert (code, printed) == (2, "")
    assert f"{file}: fault 1 (kill): lasts is '3h'" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "net").exists()


@pytest.mark.long
@pytest.mark.parametrize("file", SHIPPED, ids=[file.stem for file in SHIPPED])
def test_a_shipped_file_holds(file: Path) -> None:
    reasons = [reason for reason in map(Processes().why_not, read(file).trial(1).names) if reason]
    if reasons:
        pytest.skip("; ".join(reasons))
    code, printed, _ = scenario(file, "--json")
    report = report_of(printed)
    assert (code, unmet(report)) == (0, [])
