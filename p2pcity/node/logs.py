"""How the daemon writes its log: structlog to stdout, JSON unless stdout is a terminal.

Field names are fixed (`peer`, `member`, `transaction`, `height`, `term`, `index`, `reason`,
`duration_ms`). Each JSON line carries `priority`, syslog's number, which journald reads when
the line is prefixed `<N>`; keys and payloads are never logged.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

_PRIORITIES = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}


def _add_priority(
    _logger: object, method: str, fields: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    fields["priority"] = _PRIORITIES.get(str(fields.get("level", method)), 6)
    return fields


def configure(*, level: str = "info", format_: str = "auto") -> None:
    """Set up structlog for the process; `format_` is auto, json or text.

    Libraries that use the standard logging module are heard from `warning` on, in the same form.
    """
    number = getattr(logging, level.upper())
    is_json = format_ == "json" or (format_ == "auto" and not sys.stdout.isatty())
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if is_json
        else structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())
    )
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        _add_priority,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    if not is_json:
        shared.remove(_add_priority)
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
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
    root.setLevel(max(number, logging.WARNING))


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
