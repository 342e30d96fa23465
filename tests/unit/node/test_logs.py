"""The daemon's log: one JSON line each, for journald too, and never in the node's way."""

import json
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from p2pcity.node import logs
from p2pcity.node.logs import LogStream, RateLimit


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def written(path: Path, level: str = "info") -> list[str]:
    """What the daemon's set-up writes of some lines."""
    with path.open("wb") as file:
        stream = logs.configure(level=level, format_="json", descriptor=file.fileno())
        logger = structlog.get_logger("p2pcity.test")
        logger.debug("fine")
        logger.info("block", height=7)
        logger.warning("odd", reason="a\nb\udc80")
        logging.getLogger("library").info("unheard")
        logging.getLogger("library").error("heard")
        stream.close(5)
    return path.read_text(encoding="utf-8").splitlines()


def test_lines_are_json_with_fixed_fields(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in written(tmp_path / "log")]
    assert [(line["event"], line["level"], line["priority"]) for line in lines] == [
        ("block", "info", 6),
        ("odd", "warning", 4),
        ("heard", "error", 3),
    ]
    assert lines[0]["height"] == 7
    assert all(line["time"].endswith("Z") for line in lines)


def test_the_level_is_the_least_severe_line(tmp_path: Path) -> None:
    assert len(written(tmp_path / "all", "debug")) == 4
    assert len(written(tmp_path / "few", "error")) == 1


def test_the_level_changes_under_loggers_that_are_in_use(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        stream = logs.configure(level="info", format_="json", descriptor=file.fileno())
        logger = structlog.get_logger("p2pcity.test")
        logger.debug("no")
        logger.info("one")
        logs.set_level("debug")
        logger.debug("two")
        logs.set_level("error")
        logger.warning("no")
        logging.getLogger("library").warning("no")
        logger.error("three")
        logger.critical("four")
        stream.close(5)
    events = [json.loads(line)["event"] for line in path.read_text().splitlines()]
    assert events == ["one", "two", "three", "four"]


def test_journald_gets_the_priority_in_front(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    path.touch()
    about = path.stat()
    monkeypatch.setenv("JOURNAL_STREAM", f"{about.st_dev}:{about.st_ino}")
    lines = written(path)
    assert [line[:3] for line in lines[:2]] == ["<6>", "<4>"]
    fields = json.loads(lines[0][3:])
    assert fields["event"] == "block"
    # The journal has both of each line already.
    assert not {"time", "priority"} & set(fields)
    assert json.loads(lines[2][3:])["event"] == "heard"
    # Inherited by a child whose output goes elsewhere, the variable means nothing.
    assert written(tmp_path / "other")[0].startswith("{")


def test_a_reader_that_stands_still_does_not_hold_up_the_node() -> None:
    reading, writing = os.pipe()
    stream = LogStream(writing, lines_max=10)
    done = threading.Event()

    def log() -> None:
        for _ in range(100):
            stream.write("x" * 65_536)
        done.set()

    threading.Thread(target=log, daemon=True).start()
    assert done.wait(10), "the writer waits for the reader"
    assert 85 <= stream.dropped_count <= 90
    stream.close(0.01)
    os.close(reading)  # now the thread's write fails, and it ends
    stream.close(10)
    os.close(writing)


def test_an_output_that_refuses_does_not_stop_the_node() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    stream = LogStream(full)
    stream.write("lost\n")
    stream.close(10)
    assert stream.dropped_count == 1
    os.close(full)


def test_one_line_a_key_and_period() -> None:
    limit = RateLimit(5.0)
    assert limit.allows("a", 100.0) == (True, 0)
    assert not limit.allows("a", 101.0)[0]
    assert not limit.allows("a", 104.9)[0]
    assert limit.allows("b", 104.9) == (True, 0)
    assert limit.allows("a", 105.0) == (True, 2)
    assert limit.allows("a", 110.0) == (True, 0)


def test_the_keys_are_bounded() -> None:
    limit = RateLimit(5.0, keys_max=3)
    for number in range(1000):
        limit.allows(str(number), 0.0)
    assert not limit.allows("999", 1.0)[0]
    assert limit.allows("1", 1.0)[0]
    assert len(limit._last) == 3
