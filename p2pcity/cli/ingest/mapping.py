"""The mapping file: which columns of a record make which attributes of its event. Pure.

    [file]       missing = ["", "NA"]; delimiter = ","
    [event]      id, type, source (required), subject, dataschema: text with {column} in it
    [time]       text = "{created_date}", format, zone, ambiguous, gap, required
    [place]      longitude = "column", latitude = "column"
    [author]     column = "agency" (a key for each of its values) or name = "weather" (one key);
                 member = "NYC {agency}" and types for `--make-keys`
    [data]       name = "column", or name = { column = "column", type = "integer" }
    [constants]  name = value, the same in the data of every event

Every wrong or unknown key is a ConfigError with the nearest known one.
"""

import difflib
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from p2pcity.cli.ingest.values import (
    Row,
    RowError,
    Template,
    TimeReader,
    to_boolean,
    to_degrees_e7,
    to_integer,
    to_number,
    to_text,
)
from p2pcity.errors import ConfigError
from p2pcity.wire.cbor import Value
from p2pcity.wire.event import Event
from p2pcity.wire.fields import TIME_MS_MAX

_KEYS: Final[dict[str, tuple[str, ...] | None]] = {
    "file": ("missing", "delimiter"),
    "event": ("id", "type", "source", "subject", "dataschema", "datacontenttype"),
    "time": ("text", "format", "zone", "ambiguous", "gap", "required"),
    "place": ("longitude", "latitude"),
    "author": ("column", "name", "member", "types"),
    "data": None,
    "constants": None,
}
_REQUIRED: Final = ("id", "type", "source")
_TYPES: Final = ("text", "integer", "number", "boolean", "time", "json")
_READERS: Final[dict[str, Callable[[Any, str], Any]]] = {
    "text": to_text,
    "integer": to_integer,
    "number": to_number,
    "boolean": to_boolean,
    "json": lambda value, _column: value,
}
_NO_SALT: Final = bytes(16)


@dataclass(frozen=True, slots=True)
class DataColumn:
    """One member of an event's data: its name, the column it comes from, and its type."""

    name: str
    column: str
    type: str


@dataclass(frozen=True, slots=True)
class AuthorRule:
    """Whose key signs a row: one for each value of `column`, or the one called `name`."""

    column: str | None = None
    name: str | None = None
    member: str | None = None
    types: tuple[str, ...] = ("*",)

    def name_of(self, row: Row) -> str | None:
        """Return the name of the row's author, None for the one author key."""
        if self.column is None:
            return self.name
        value = row.get(self.column)
        if value is None:
            raise RowError(f"{self.column}: empty, so nobody signs for this row")
        return to_text(value, self.column)

    def member_of(self, name: str) -> str:
        """Return the member that the author called `name` belongs to."""
        if self.member is None:
            return name
        return self.member.replace(f"{{{self.column}}}", name)


@dataclass(frozen=True, slots=True)
class EventMap:
    """A mapping file, checked."""

    attributes: Mapping[str, Template]
    time_text: Template | None
    time: TimeReader
    is_time_required: bool
    place: tuple[str, str] | None
    author: AuthorRule
    data: tuple[DataColumn, ...]
    constants: Mapping[str, Any]
    missing: frozenset[str]
    delimiter: str

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that the map names."""
        named = list(self.needed_columns)
        for template in self.attributes.values():
            named.extend(template.columns)
        named.extend(self.place or ())
        named.extend(item.column for item in self.data)
        return tuple(dict.fromkeys(named))

    @property
    def needed_columns(self) -> tuple[str, ...]:
        """The columns without which no row can become an event."""
        named: list[str] = []
        for name in _REQUIRED:
            named.extend(self.attributes[name].columns)
        if self.time_text is not None:
            named.extend(self.time_text.columns)
        if self.author.column is not None:
            named.append(self.author.column)
        return tuple(dict.fromkeys(named))

    def check_columns(self, where: str, present: Iterable[str], *, is_sparse: bool) -> None:
        """Raise ConfigError for the first column of the map that the file does not have.

        Where rows leave out what they lack (`is_sparse`), place and data may be absent.
        """
        known = list(present)
        for column in self.needed_columns if is_sparse else self.columns:
            if column not in known:
                near = difflib.get_close_matches(column, known, 1, cutoff=0.5)
                remedy = f"Did you mean {near[0]}?" if near else f"It has: {', '.join(known)}."
                raise ConfigError(
                    f"{where} has no column {column!r}, which the map names", remedy=remedy
                )

    def to_event(self, row: Row) -> Event:
        """Return the row's event with a salt of zeros; RowError says what is wrong with it.

        The event's own rules (lengths, control characters) are checked when it is encoded.
        """
        texts = {name: template.fill(row) for name, template in self.attributes.items()}
        for name in _REQUIRED:
            if not texts[name]:
                columns = ", ".join(self.attributes[name].columns)
                raise RowError(f"{columns}: empty, so the event has no {name}")
        data = {**self.constants}
        for item in self.data:
            value = row.get(item.column)
            if value is not None:
                data[item.name] = self._read(item, value)
        return Event(
            salt=_NO_SALT,
            id=texts["id"] or "",
            type=texts["type"] or "",
            source=texts["source"] or "",
            subject=texts.get("subject") or None,
            time_ms=self._time_ms(row),
            place=self._place(row),
            dataschema=texts.get("dataschema") or None,
            datacontenttype=texts.get("datacontenttype") or None,
            data=cast(Value, data or None),
        )

    def _read(self, item: DataColumn, value: Any) -> Any:
        if item.type == "time":
            return self.time.read_ms(to_text(value, item.column), item.column)
        return _READERS[item.type](value, item.column)

    def _time_ms(self, row: Row) -> int | None:
        if self.time_text is None:
            return None
        text = self.time_text.fill(row)
        name = ", ".join(self.time_text.columns)
        if text is None:
            if self.is_time_required:
                raise RowError(f"{name}: empty, so the event has no time")
            return None
        time_ms = self.time.read_ms(text, name)
        if not 0 <= time_ms <= TIME_MS_MAX:
            raise RowError(f"{name}: {text[:40]!r} is not between 1970 and 9999")
        return time_ms

    def _place(self, row: Row) -> tuple[int, int] | None:
        if self.place is None:
            return None
        longitude, latitude = (row.get(column) for column in self.place)
        if longitude is None and latitude is None:
            return None
        if longitude is None or latitude is None:
            raise RowError(f"{' and '.join(self.place)}: only one of them is given")
        return (
            to_degrees_e7(longitude, self.place[0], 180),
            to_degrees_e7(latitude, self.place[1], 90),
        )


def parse_author(text: str, where: str) -> AuthorRule:
    """Read [author] alone, which is all that a map of CloudEvents has. Raises ConfigError."""
    document = _load(text, where)
    for section in document:
        if section != "author":
            raise _unknown(where, section, ["author"])
    return _parse_author(where, document.get("author", {}))


def parse(text: str, where: str) -> EventMap:
    """Read a mapping file's text; `where` is its name for messages. Raises ConfigError."""
    document = _load(text, where)
    event = document.get("event", {})
    for key in _REQUIRED:
        if key not in event:
            raise ConfigError(
                f"{where}: [event] has no {key}", remedy=f'Write {key} = "..." with {{column}}.'
            )
    time, place, file = (document.get(name, {}) for name in ("time", "place", "file"))
    if len(place) == 1:
        raise ConfigError(
            f"{where}: [place] has one of longitude and latitude", remedy="Name both columns."
        )
    return EventMap(
        attributes={key: _template(where, f"event.{key}", value) for key, value in event.items()},
        time_text=_template(where, "time.text", time["text"]) if "text" in time else None,
        time=_parse_time(where, time),
        is_time_required=bool(time.get("required", True)),
        place=(_text(where, "place.longitude", place), _text(where, "place.latitude", place))
        if place
        else None,
        author=_parse_author(where, document.get("author", {})),
        data=tuple(
            _parse_data(where, name, spec) for name, spec in document.get("data", {}).items()
        ),
        constants=document.get("constants", {}),
        missing=frozenset(map(str, file.get("missing", [""]))),
        delimiter=str(file.get("delimiter", ",")),
    )


def _load(text: str, where: str) -> dict[str, Any]:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: {error}", remedy="Correct the TOML at that place.") from None
    for section, body in document.items():
        if section not in _KEYS:
            raise _unknown(where, section, _KEYS)
        if not isinstance(body, dict):
            raise ConfigError(f"{where}: {section} is no section", remedy=f"Write [{section}].")
        known = _KEYS[section]
        for key in body:
            if known is not None and key not in known:
                raise _unknown(f"{where}: [{section}]", key, known)
    return document


def _parse_time(where: str, time: dict[str, Any]) -> TimeReader:
    zone: ZoneInfo | None = None
    if "zone" in time:
        try:
            zone = ZoneInfo(str(time["zone"]))
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ConfigError(
                f"{where}: time.zone {time['zone']!r} is unknown",
                remedy="Use a name of the IANA database, such as America/New_York, or UTC.",
            ) from None
    for key, choices in (("ambiguous", ("first", "second")), ("gap", ("forward", "reject"))):
        if time.get(key, choices[0]) not in choices:
            raise ConfigError(
                f"{where}: time.{key} is {time[key]!r}", remedy=f"Use {' or '.join(choices)}."
            )
    return TimeReader(
        str(time.get("format", "iso")),
        zone,
        str(time.get("ambiguous", "first")),
        str(time.get("gap", "forward")),
    )


def _parse_author(where: str, author: dict[str, Any]) -> AuthorRule:
    if "column" in author and "name" in author:
        raise ConfigError(
            f"{where}: [author] has both column and name", remedy="Keep one of the two."
        )
    types = author.get("types", ["*"])
    if not isinstance(types, list) or not all(isinstance(item, str) for item in types):
        raise ConfigError(f"{where}: author.types is no list of texts", remedy='Use ["*"].')
    texts = {k: _text(where, f"author.{k}", author) for k in author if k != "types"}
    return AuthorRule(texts.get("column"), texts.get("name"), texts.get("member"), tuple(types))


def _parse_data(where: str, name: str, spec: Any) -> DataColumn:
    if isinstance(spec, str):
        return DataColumn(name, spec, "text")
    if not isinstance(spec, dict) or "column" not in spec or not spec.keys() <= {"column", "type"}:
        raise ConfigError(
            f"{where}: data.{name} is not understood",
            remedy='Write "column", or { column = "column", type = "integer" }.',
        )
    kind = spec.get("type", "text")
    if kind not in _TYPES:
        raise ConfigError(
            f"{where}: data.{name} has type {kind!r}", remedy=f"Use one of {', '.join(_TYPES)}."
        )
    return DataColumn(name, str(spec["column"]), kind)


def _template(where: str, name: str, value: Any) -> Template:
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return Template.parse(":".join(f"{{{column}}}" for column in value))
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{where}: {name} is {value!r}", remedy="Use a text with {column} in it.")
    return Template.parse(value)


def _text(where: str, name: str, section: dict[str, Any]) -> str:
    value = section.get(name.partition(".")[2])
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{where}: {name} is {value!r}", remedy="Use a text.")
    return value


def _unknown(where: str, name: str, known: Iterable[str]) -> ConfigError:
    names = list(known)
    near = difflib.get_close_matches(name, names, 1, cutoff=0.5)
    hint = f"Did you mean {near[0]}?" if near else f"Known are: {', '.join(names)}."
    return ConfigError(f"{where}: {name} is unknown", remedy=hint)
