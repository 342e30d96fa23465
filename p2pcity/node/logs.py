"""How the daemon writes its log: structlog to stdout, JSON unless stdout is a terminal.

Field names are fixed (`peer`, `member`, `transaction`, `height`, `term`, `index`, `reason`,
`duration_ms`). Each JSON line carries `time` and `priority`, syslog's number; where journald
reads along, the line is prefixed with the number (`<N>`) and has neither: the journal keeps both.
Keys and payloads are never logged.
"""

import logging
import os
import queue
import sys
import threading
from collections.abc import MutableMapping
from typing import Any, TextIO, cast

import structlog

_NUMBERS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_PRIORITIES = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}


def _add_priority(
    _logger: object, method: str, fields: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    fields["priority"] = _PRIORITIES.get(str(fields.get("level", method)), 6)
    return fields


class _LevelGate:
    """Drops lines below a level that can be changed while loggers hold on to their set-up."""

    def __init__(self) -> None:
        self._number = logging.INFO

    def set(self, number: int) -> None:
        self._number = number

    def __call__(
        self, _logger: object, method: str, fields: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        if _NUMBERS.get(method, logging.CRITICAL) < self._number:
            raise structlog.DropEvent
        return fields


_gate = _LevelGate()


class LogStream:
    """A stream in front of a descriptor that neither waits nor fails: a thread of its own writes.

    A reader of our output that stands still, or a full disk below it, must not stop the node.
    Lines beyond `lines_max` that wait, and those that the descriptor refuses, are dropped and
    counted.
    """

    def __init__(self, descriptor: int, lines_max: int = 10_000) -> None:
        self._descriptor = descriptor
        self._lines_max = lines_max
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.dropped_count = 0
        # A daemon thread: one that waits for a reader for ever does not hold up the exit.
        self._thread = threading.Thread(target=self._work, name="p2pcity-logs", daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        """Queue `text`; whole lines come in one call."""
        if self._queue.qsize() < self._lines_max:
            self._queue.put(text.encode("utf-8", "backslashreplace"))
        else:
            self.dropped_count += 1
        return len(text)

    def flush(self) -> None:
        """Do nothing: lines are written as soon as they can be."""

    def close(self, timeout_s: float) -> None:
        """Wait until what was queued is written, at most `timeout_s`."""
        self._queue.put(None)
        self._thread.join(timeout_s)

    def _work(self) -> None:
        while (line := self._queue.get()) is not None:
            try:
                while line:
                    line = line[os.write(self._descriptor, line) :]
            except OSError:
                self.dropped_count += 1


def configure(
    *, level: str = "info", format_: str = "auto", descriptor: int | None = None
) -> LogStream:
    """Set up structlog for the process; `format_` is auto, json or text.

    Lines go to `descriptor`, stdout by default; the caller closes what is returned at the end.
    Libraries that use the standard logging module are heard from `warning` on, in the same form.
    """
    descriptor = sys.stdout.fileno() if descriptor is None else descriptor
    is_terminal = os.isatty(descriptor)
    is_journal = _is_journal(descriptor)
    is_json = format_ == "json" or (format_ == "auto" and not is_terminal)
    renderer: Any = (
        (_render_for_journal if is_journal else _render_json)
        if is_json
        else structlog.dev.ConsoleRenderer(colors=is_terminal)
    )
    stream = LogStream(descriptor)
    # What both libraries ask of a stream is `write` and `flush`.
    file = cast(TextIO, stream)
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        _add_priority,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    if not is_json:
        shared.remove(_add_priority)
    elif is_journal:
        # The journal notes the time of each line itself.
        shared.pop()
    structlog.configure(
        processors=[_gate, *shared, structlog.processors.format_exc_info, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET),
        logger_factory=structlog.WriteLoggerFactory(file),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(file)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                renderer,
            ],
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    set_level(level)
    return stream


def set_level(level: str) -> None:
    """Let the least severe line be one of `level` (debug, info, warning, error) from now on."""
    number = getattr(logging, level.upper())
    _gate.set(number)
    logging.getLogger().setLevel(max(number, logging.WARNING))


_render_json = structlog.processors.JSONRenderer()


def _render_for_journal(logger: object, method: str, fields: MutableMapping[str, Any]) -> str:
    # In front of the line it says the same to the journal, which keeps it as a field.
    priority = fields.pop("priority")
    line = _render_json(logger, method, fields)
    assert isinstance(line, str)
    return f"<{priority}>{line}"


def _is_journal(descriptor: int) -> bool:
    """Whether `descriptor` is the stream that journald gave this process (systemd.exec(5))."""
    about = os.fstat(descriptor)
    return os.environ.get("JOURNAL_STREAM") == f"{about.st_dev}:{about.st_ino}"


class RateLimit:
    """Lets one line a key through per period; bounded in keys; counts what it held back."""

    def __init__(self, period_s: float, keys_max: int = 1024) -> None:
        self._period_s = period_s
        self._keys_max = keys_max
        self._last: dict[str, tuple[float, int]] = {}

    def allows(self, key: str, now_s: float) -> tuple[bool, int]:
        """Whether a line for `key` may be written now, and how many were held back before it."""
        last, held = self._last.get(key, (float("-inf"), 0))
        if now_s - last < self._period_s:
            self._last[key] = (last, held + 1)
            return False, held + 1
        if len(self._last) >= self._keys_max and key not in self._last:
            self._last.pop(next(iter(self._last)))
        self._last[key] = (now_s, 0)
        return True, held
