"""The demo itself, with events of our own making: four processes, one of them killed half way."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.json_schemas import check

pytestmark = pytest.mark.integration

COUNT = 600
ROOT = Path(__file__).resolve().parent.parent.parent
DEMO = [sys.executable, "-m", "p2pcity", "demo"]
DEADLINE_S = 90


@pytest.fixture
def events(tmp_path: Path) -> Path:
    file = tmp_path / "events.ndjson"
    with file.open("w") as stream:
        for number in range(COUNT):
            event = {
                "specversion": "1.0",
                "id": str(number),
                "source": f"/districts/{number % 3}/lamps",
                "type": "lamp.switched",
                "time": f"2024-03-01T{number // 60 % 24:02d}:{number % 60:02d}:00Z",
                "data": {"is_on": number % 2 == 0},
            }
            stream.write(json.dumps(event) + "\n")
    return file


def _environment(directory: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(directory), "PYTHONUNBUFFERED": "1"}


def _is_running(pid: int) -> bool:
    try:
        # Of a process that ended and was not yet waited for, nothing is left here.
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


def test_nothing_is_lost_when_the_leader_is_killed(events: Path, tmp_path: Path) -> None:
    ended = subprocess.run(
        [*DEMO, "--exit", "--json", "--events", str(events)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        cwd=ROOT,
        env=_environment(tmp_path),
        check=False,
    )
    assert ended.returncode == 0, ended.stderr + ended.stdout
    report = json.loads(ended.stdout)
    check(report)
    assert report["schema"] == "p2pcity/demo/1"
    assert report["is_ok"]
    assert report["failures"] == []
    assert report["events"] == {
        "sent": COUNT,
        "accepted": COUNT,
        "committed": COUNT,
        "lost": 0,
        "duplicated": 0,
        "misplaced": 0,
        "unexpected": 0,
    }
    nodes = report["nodes"]
    assert [node["role"] for node in nodes] == ["orderer"] * 3 + ["observer"]
    for name in ("height", "head", "root", "tree_size", "events", "events_sha256"):
        assert len({node[name] for node in nodes}) == 1, name
    assert nodes[0]["events"] == COUNT
    assert nodes[0]["tree_size"] == report["transactions"]
    election = report["election"]
    assert election["leader"] not in (None, election["killed"])
    assert election["new_term"] > election["term"]
    assert 0 < election["without_leader_s"] <= election["until_commit_s"]
    followed = report["followed"]["nodes"]
    assert {row["status"] for row in followed} == {"committed"}
    assert len({(row["height"], row["leaf_index"]) for row in followed}) == 1
    assert report["cost_per_thousand_events"]["cpu_s"] > 0
    # Without a terminal there are plain lines, and nothing stays behind.
    assert "was killed (SIGKILL)" in ended.stderr
    assert "\x1b" not in ended.stderr
    assert not Path(report["directory"]).exists()


def _hear_ctrl_c() -> None:
    """Undo what a shell does to jobs in its background: they ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_ctrl_c_stops_every_process(events: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    demo = subprocess.Popen(
        [*DEMO, "--events", str(events), "--dir", str(kept)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env=_environment(tmp_path),
        start_new_session=True,
        preexec_fn=_hear_ctrl_c,
    )
    try:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "loading begins" in line:
                break
        pids = [int(file.read_text()) for file in kept.glob("*/node.pid")]
        assert len(pids) == 4
        demo.send_signal(signal.SIGINT)
        demo.communicate(timeout=30)
        assert demo.returncode == 130
        assert [pid for pid in pids if _is_running(pid)] == []
        assert (kept / "node1" / "node.log").exists()
    finally:
        demo.kill()
        demo.wait()


def test_sigterm_while_the_nodes_start(events: Path, tmp_path: Path) -> None:
    demo = subprocess.Popen(
        [*DEMO, "--events", str(events)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env=_environment(tmp_path),
        start_new_session=True,
    )
    try:
        until_s = time.monotonic() + DEADLINE_S
        while not list(tmp_path.glob("p2pcity-demo-*/node2/node.pid")):
            assert time.monotonic() < until_s
            time.sleep(0.01)
        demo.terminate()
        demo.communicate(timeout=30)
        assert demo.returncode == 128 + signal.SIGTERM
        assert list(tmp_path.glob("p2pcity-demo-*")) == []
    finally:
        demo.kill()
        demo.wait()


def test_too_few_events_and_a_wrong_file(tmp_path: Path) -> None:
    file = tmp_path / "events.ndjson"
    file.write_text('{"specversion":"1.0","id":"1","source":"/s","type":"t"}\n')
    for given, said in ((file, "1 events are too few"), (tmp_path / "absent", "No such file")):
        ended = subprocess.run(
            [*DEMO, "--exit", "--events", str(given)],
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            cwd=ROOT,
            env=_environment(tmp_path),
            check=False,
        )
        assert ended.returncode == 2
        assert said in ended.stderr
        assert ended.stderr.count("\n") == 1
