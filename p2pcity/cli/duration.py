"""Lengths of time on the command line."""

import re
from typing import Any, Final

import click

_FORM: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m)?")
_UNITS_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0}
_SHORTEST_S: Final = 0.1


def read_seconds(text: str) -> float | None:
    """Return the seconds that a text names (20s, 500ms, 1m, 20), None when it names none."""
    match = _FORM.fullmatch(text)
    return float(match[1]) * _UNITS_S[match[2] or "s"] if match else None


class Duration(click.ParamType):  # type: ignore[type-arg]  # older clicks have no argument
    """A length of time: 20s, 500ms, 1m; seconds without a unit."""

    name = "duration"

    def __init__(self, longest_s: float) -> None:
        self._longest_s = longest_s

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the seconds that `value` names."""
        if isinstance(value, float):
            return value
        seconds = read_seconds(str(value)) or 0.0
        if not _SHORTEST_S <= seconds <= self._longest_s:
            longest = f"{self._longest_s / 60:.0f}m"
            self.fail(
                f"{value!r} is no length of time from 100ms to {longest}, such as 20s.", param, ctx
            )
        return seconds
