"""What the demo loads: events with the names of those who sign them, from a file of one's own."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from p2pcity.api.cloudevents import read_structured
from p2pcity.api.service import EventInput
from p2pcity.errors import ConfigError, DecodeError

AUTHORS_MAX: Final = 16
OTHERS: Final = "others"
_NAME_LENGTH_MAX: Final = 40
_REMEDY: Final = "Write one CloudEvent in JSON a line (specversion, id, source, type...)."
_replace_odd = re.compile(r"[^A-Za-z0-9.]+").sub


@dataclass(frozen=True, slots=True)
class AuthoredEvent:
    """An event and the name of the author who signs it."""

    author: str
    event: EventInput


def in_time_order(events: Iterable[AuthoredEvent]) -> list[AuthoredEvent]:
    """Return the events by their time, those without one first; equal ones keep their order."""
    return sorted(events, key=lambda item: item.event.time_ms or 0)


def read_file(path: Path, count: int | None = None) -> list[AuthoredEvent]:
    """Return the events of an NDJSON file of CloudEvents, in time order; at most `count`.

    The event's source decides who signs it: the 15 most frequent sources are an author each, all
    others together one. An event that stands in the file twice (source and id) is taken once.
    Raises ConfigError with the line that is wrong.
    """
    found: dict[tuple[str, str], EventInput] = {}
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    event = read_structured(line)
                except DecodeError as error:
                    raise ConfigError(f"{path}:{number}: {error}", remedy=_REMEDY) from error
                found.setdefault((event.source, event.id), event)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", remedy="Name a readable file.") from error
    if not found:
        raise ConfigError(f"{path} has no events", remedy=_REMEDY)
    names = _name_authors(Counter(source for source, _ in found))
    events = [AuthoredEvent(names.get(event.source, OTHERS), event) for event in found.values()]
    return in_time_order(events)[:count]


def _name_authors(sources: Counter[str]) -> dict[str, str]:
    """Give the most frequent sources names that can be a file's."""
    own = [source for source, _ in sources.most_common(AUTHORS_MAX)]
    if len(sources) > AUTHORS_MAX:
        own.pop()  # the last place is for the others together
    names: dict[str, str] = {}
    for source in own:
        name = _replace_odd("-", source).strip("-.")[:_NAME_LENGTH_MAX] or "author"
        while name in names.values() or name == OTHERS:
            name += "-"
        names[source] = name
    return names
