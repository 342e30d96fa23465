"""Ingest: values, maps, rows, and that nothing doubles, whatever the node answers."""

import contextlib
import gzip
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pcity.cli.genesis import read_authors
from p2pcity.cli.ingest import sending
from p2pcity.cli.ingest.authors import AuthorKeys, key_path, make_keys
from p2pcity.cli.ingest.command import Rows
from p2pcity.cli.ingest.mapping import AuthorRule, parse
from p2pcity.cli.ingest.report import Totals
from p2pcity.cli.ingest.sending import Prepared, Sender
from p2pcity.cli.ingest.values import (
    RowError,
    Template,
    TimeReader,
    to_boolean,
    to_degrees_e7,
    to_integer,
    to_number,
)
from p2pcity.crypto.keys import PrivateKey
from p2pcity.errors import ConfigError, Unavailable
from p2pcity.wire import event as event_wire
from p2pcity.wire import transaction as transaction_wire
from p2pcity.wire.limits import TRANSACTION_BYTES_MAX

NETWORK = bytes(range(32))
MAP = """
[event]
id = "{key}"
type = "t.row"
source = "/file"
subject = "{zip}"
[time]
text = "{when}"
zone = "America/New_York"
[place]
longitude = "lon"
latitude = "lat"
[author]
column = "agency"
types = ["t.*"]
[data]
zip = "zip"
count = { column = "count", type = "integer" }
[constants]
origin = "test"
"""
HEADER = "key,when,agency,zip,count,lon,lat\n"
NEW_YORK = ZoneInfo("America/New_York")


def ms(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> int:
    return int(datetime(year, month, day, hour, minute, tzinfo=UTC).timestamp() * 1000)


class TestTimes:
    def test_local_time_and_offsets(self) -> None:
        reader = TimeReader(zone=NEW_YORK)
        assert reader.read_ms("2020-07-01T12:00:00", "c") == ms(2020, 7, 1, 16)
        assert reader.read_ms("2020-01-01T12:00:00", "c") == ms(2020, 1, 1, 17)
        assert reader.read_ms("2020-01-01T12:00:00+01:00", "c") == ms(2020, 1, 1, 11)
        assert reader.read_ms("2020-01-01 12:00:00.5Z", "c") == ms(2020, 1, 1, 12) + 500

    def test_an_hour_that_comes_twice(self) -> None:
        twice = "2020-11-01T01:30:00"
        assert TimeReader(zone=NEW_YORK).read_ms(twice, "c") == ms(2020, 11, 1, 5, 30)
        later = TimeReader(zone=NEW_YORK, ambiguous="second")
        assert later.read_ms(twice, "c") == ms(2020, 11, 1, 6, 30)

    @pytest.mark.parametrize("ambiguous", ["first", "second"])
    def test_an_hour_that_is_left_out(self, ambiguous: str) -> None:
        skipped = "2020-03-08T02:30:00"
        reader = TimeReader(zone=NEW_YORK, ambiguous=ambiguous)
        assert reader.read_ms(skipped, "c") == ms(2020, 3, 8, 7, 30)  # 03:30 summer time
        with pytest.raises(RowError, match="does not exist in America/New_York"):
            TimeReader(zone=NEW_YORK, gap="reject").read_ms(skipped, "c")

    def test_formats(self) -> None:
        reader = TimeReader("%d.%m.%Y %H:%M", ZoneInfo("UTC"))
        assert reader.read_ms("5.1.2021 7:05", "c") == ms(2021, 1, 5, 7, 5)
        assert TimeReader("unix_s").read_ms("1.5", "c") == 1500
        assert TimeReader("unix_ms").read_ms("1500", "c") == 1500

    @pytest.mark.parametrize("text", ["", "yesterday", "2020-13-01T00:00:00Z", "2020-01-01T00:00"])
    def test_what_is_no_time(self, text: str) -> None:
        with pytest.raises(RowError):
            TimeReader().read_ms(text, "when")

    @given(st.text())
    def test_any_text_is_a_time_or_a_row_error(self, text: str) -> None:
        for reader in (TimeReader(zone=NEW_YORK), TimeReader("unix_s"), TimeReader("%Y")):
            with contextlib.suppress(RowError):
                reader.read_ms(text, "c")


class TestValues:
    def test_numbers(self) -> None:
        assert to_integer(" 42 ", "c") == 42
        assert to_integer(3.0, "c") == 3
        assert to_number("1e3", "c") == 1000
        assert type(to_number("2.0", "c")) is int
        assert to_number("2.5", "c") == 2.5
        for wrong in ("x", "1.5", "9" * 19, 2**60, True, None):
            with pytest.raises(RowError):
                to_integer(wrong, "c")
        no_numbers: list[Any] = ["nan", "inf", "", "1,5", [], True]
        for no_number in no_numbers:
            with pytest.raises(RowError):
                to_number(no_number, "c")

    def test_booleans(self) -> None:
        assert to_boolean("Yes", "c") is True
        assert to_boolean(False, "c") is False
        with pytest.raises(RowError):
            to_boolean("perhaps", "c")

    def test_degrees(self) -> None:
        assert to_degrees_e7("-73.82713379893613", "c", 180) == -738271338
        assert to_degrees_e7(90, "c", 90) == 900_000_000
        for wrong in ("90.1", "nan", "inf", "", "x", "1e400000"):
            with pytest.raises(RowError):
                to_degrees_e7(wrong, "c", 90)

    def test_templates(self) -> None:
        template = Template.parse("{a}-{b}-{a}")
        assert template.fill({"a": "{b}", "b": 2}) == "{b}-2-{b}"
        assert template.fill({"a": "1"}) is None
        assert Template.parse("fixed").fill({}) == "fixed"


@pytest.mark.parametrize(
    ("text", "message", "remedy"),
    [
        ("[evnt]\n", "evnt", "event"),
        ("[event]\nidd = 'x'\n", "idd", "id"),
        ("[event]\nid = 'x'\ntype = 'y'\n", "no source", "source"),
        (MAP.replace("America/New_York", "America/Gotham"), "Gotham", "IANA"),
        (MAP.replace('latitude = "lat"', ""), "[place]", "both"),
        (MAP.replace('"integer"', '"int"'), "data.count", "integer"),
        (MAP.replace('column = "agency"', 'column = "agency"\nname = "x"'), "[author]", "one"),
        (MAP.replace('zone = "America/New_York"', 'gap = "jump"'), "time.gap", "forward"),
        ("[event\n", "m.toml", "TOML"),
    ],
)
def test_a_wrong_map_is_named_with_its_remedy(text: str, message: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "m.toml")
    assert message in str(caught.value)
    assert remedy in caught.value.remedy


class Files:
    """Writes a data file and its map, and opens both as the command does."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.map = directory / "m.toml"
        self.map.write_text(MAP)

    def rows(self, data: bytes, name: str = "f.csv", format_: str = "csv") -> Rows:
        file = self.directory / name
        file.write_bytes(data)
        return Rows(format_, file, self.map if format_ != "cloudevents" else None, None)

    def keys(self, *names: str) -> AuthorKeys:
        make_keys(self.directory / "keys", AuthorRule("agency"), names)
        return AuthorKeys(self.directory / "keys", None)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


class TestRows:
    def test_a_row_becomes_an_event(self, files: Files) -> None:
        line = "7,2020-07-01T12:00:00,DOT,11367,3,-73.5,40.25\n"
        rows = files.rows((HEADER + line).encode())
        (item,) = rows.prepared(files.keys("DOT"), Totals())
        event = item.event
        assert (event.id, event.type, event.source, event.subject) == (
            "7",
            "t.row",
            "/file",
            "11367",
        )
        assert event.time_ms == ms(2020, 7, 1, 16)
        assert event.place == (-735000000, 402500000)
        assert event.data == {"zip": "11367", "count": 3, "origin": "test"}
        assert len(event.salt) == 16
        assert any(event.salt)

    def test_bad_rows_are_written_down_and_end_nothing(self, files: Files) -> None:
        good = "1,2020-07-01T12:00:00,DOT,1,3,,\n"
        bad = [
            ",2020-07-01T12:00:00,DOT,1,3,,\n",
            "3,soon,DOT,1,3,,\n",
            "4,2020-07-01T12:00:00,DOT,1,three,,\n",
            "5,2020-07-01T12:00:00\n",
            "6,2020-07-01T12:00:00,DOT,1,3,-73,\n",
            "7,2020-07-01T12:00:00,DOT,1,3,-73,95\n",
            "8,2020-07-01T12:00:00,,1,3,,\n",
            f"9,2020-07-01T12:00:00,DOT,{'x' * 3000},3,,\n",
            '10,2020-07-01T12:00:00,DOT,"a\nb",3,,\n',
        ]
        latin = "11,2020-07-01T12:00:00,DOT,é,3,,\n".encode("latin-1")
        end = "12,1969-07-01T12:00:00,DOT,1,3,,\n13,2020-07-01T12:00:00,DOT,1,3,,\n"
        rows = files.rows((HEADER + good + "".join(bad)).encode() + latin + end.encode())
        totals = Totals()
        items = list(rows.prepared(files.keys("DOT"), totals))
        rows.close()
        assert [item.event.id for item in items] == ["1", "13"]
        assert (totals.rows, totals.rejected) == (13, 11)
        lines = rows.rejects.path.read_text(encoding="utf-8").splitlines()
        assert lines[0] == "line,reason,row"
        for start, reason in (
            ("3,", "no id"),
            ("4,", "not a time"),
            ("5,", "not a whole number"),
            ("6,", "2 columns instead of 7"),
            ("7,", "only one of them"),
            ("8,", "not degrees"),
            ("9,", "nobody signs"),
            ("10,", "2048"),
            ("11,", "control character"),
        ):
            assert any(line.startswith(start) and reason in line for line in lines), start
        # The quoted line feed makes the tenth record two lines long.
        assert any(line.startswith("13,not UTF-8") for line in lines)
        assert any(line.startswith("14,") and "1970" in line for line in lines)

    def test_an_unclosed_quote_costs_at_most_the_field_limit(self, files: Files) -> None:
        row = "{},2020-07-01T12:00:00,DOT,1,3,,\n"
        broken = '0,2020-07-01T12:00:00,"DOT,1,3,,\n'
        rest = "".join(row.format(number) for number in range(1, 10_000))
        totals = Totals()
        items = list(
            files.rows((HEADER + broken + rest).encode()).prepared(files.keys("DOT"), totals)
        )
        assert totals.rejected >= 1
        assert len(items) > 5_000

    @pytest.mark.parametrize("name", ["f.csv.gz", "f.csv.zip"])
    def test_compressed(self, files: Files, name: str) -> None:
        data = (HEADER + "1,2020-07-01T12:00:00,DOT,1,3,,\n").encode()
        if name.endswith("gz"):
            packed = gzip.compress(data)
        else:
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w") as archive:
                archive.writestr("f.csv", data)
            packed = buffer.getvalue()
        assert len(list(files.rows(packed, name).prepared(files.keys("DOT"), Totals()))) == 1

    def test_a_gz_that_is_cut_off(self, files: Files) -> None:
        packed = gzip.compress((HEADER + "1,2020-07-01T12:00:00,DOT,1,3,,\n" * 9).encode())
        with pytest.raises(ConfigError, match=r"csv\.gz"):
            list(files.rows(packed[:-12], "f.csv.gz").prepared(files.keys("DOT"), Totals()))

    @pytest.mark.parametrize("data", [b"", b"\n", HEADER.encode(), b"\xff\xfe,b\n", b"a,a\n1,2\n"])
    def test_a_file_without_records_or_names_is_an_error(self, files: Files, data: bytes) -> None:
        with pytest.raises(ConfigError) as caught:
            list(files.rows(data).prepared(files.keys("DOT"), Totals()))
        assert caught.value.remedy

    def test_a_wrong_column_name_is_fatal_with_the_nearest(self, files: Files) -> None:
        with pytest.raises(ConfigError, match="'agency'") as caught:
            files.rows(HEADER.replace("agency", "agencey").encode())
        assert "agencey" in caught.value.remedy

    def test_a_missing_key_is_fatal(self, files: Files) -> None:
        rows = files.rows((HEADER + "1,2020-07-01T12:00:00,DSNY,1,3,,\n").encode())
        with pytest.raises(ConfigError, match="DSNY") as caught:
            list(rows.prepared(files.keys("DOT"), Totals()))
        assert "--make-keys" in caught.value.remedy

    def test_ndjson(self, files: Files) -> None:
        row = {"key": 1, "when": "2020-07-01T12:00:00", "agency": "DOT", "count": 3, "zip": None}
        lines = [json.dumps(row), "[1]", "{", "", json.dumps({**row, "key": 2, "count": "x"})]
        totals = Totals()
        rows = files.rows("\n".join(lines).encode(), "f.ndjson", "ndjson")
        (item,) = rows.prepared(files.keys("DOT"), totals)
        assert item.event.id == "1"
        assert item.event.subject is None
        assert totals.rejected == 3

    def test_cloudevents(self, files: Files, tmp_path: Path) -> None:
        event = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": {"a": 1}}
        lines = [json.dumps(event), json.dumps({**event, "id": ""})]
        rows = files.rows("\n".join(lines).encode(), "f.ndjson", "cloudevents")
        (tmp_path / "one.key").write_bytes(PrivateKey.generate().to_pem())
        (tmp_path / "one.key").chmod(0o600)
        totals = Totals()
        (item,) = rows.prepared(AuthorKeys(None, tmp_path / "one.key"), totals)
        assert item.event.data == {"a": 1}
        assert totals.rejected == 1


def test_keys_and_the_file_for_the_genesis(tmp_path: Path) -> None:
    rule = AuthorRule("agency", member="NYC {agency}", types=("t.*",))
    assert make_keys(tmp_path, rule, ["DOT", "a/../b"]) == ["DOT", "a/../b"]
    assert make_keys(tmp_path, rule, ["DOT", "a/../b"]) == []
    assert key_path(tmp_path, "a/../b").parent == tmp_path
    authors = {author.name: author for author in read_authors(tmp_path / "authors.toml")}
    assert authors["DOT"].member == "NYC DOT"
    assert authors["DOT"].types == ("t.*",)
    assert authors["DOT"].key == AuthorKeys(tmp_path, None).key("DOT").public


class FakeLedger:
    """Keeps what it is sent as the ledger would, and answers what a test tells it to."""

    def __init__(self, *, busy: int = 0, script: Sequence[str] = ()) -> None:
        self.names: set[bytes] = set()
        self.transactions: list[transaction_wire.Carried] = []
        self.busy = busy
        self.script = list(script)

    def known(self, names: Sequence[bytes]) -> Sequence[bool]:
        if self.busy:
            self.busy -= 1
            raise Unavailable("busy", retry_after_ms=3000)
        return [name in self.names for name in names]

    def submit(self, carried: Sequence[bytes]) -> Sequence[Mapping[str, Any]]:
        return [self._one(data) for data in carried]

    def _one(self, data: bytes) -> Mapping[str, Any]:
        item = transaction_wire.examine(data, NETWORK)
        status = self.script.pop(0) if self.script else "committed"
        if status not in ("committed", "pending", "expired"):
            return {"status": "rejected", "reason": status}
        if status == "committed":
            self.transactions.append(item)
            for event in item.decoded_events():
                assert event is not None
                name = event_wire.name_key(item.transaction.author, event.source, event.id)
                assert name not in self.names, "sent twice"
                self.names.add(name)
        return {"status": status, "reason": ""}


def send(
    ledger: FakeLedger, items: Sequence[Prepared], group: int = 64
) -> tuple[Totals, list[float]]:
    totals = Totals()
    pauses: list[float] = []
    sender = Sender(
        ledger, NETWORK, totals, group=group, in_flight=2, patience_s=60, sleep=pauses.append
    )
    sender.send_all(items, lambda: None)
    return totals, pauses


class TestSending:
    def items(self, count: int, start: int = 0, size: int = 10) -> list[Prepared]:
        keys = [PrivateKey.from_seed(bytes([n]) * 32) for n in (1, 2, 3)]
        return [
            sending.prepare(
                keys[n % 3], event_wire.Event(bytes(16), str(n), "t", "/s", data="x" * size)
            )
            for n in range(start, start + count)
        ]

    def test_a_second_run_adds_only_what_is_new(self) -> None:
        ledger = FakeLedger()
        totals, _ = send(ledger, self.items(3000))
        assert (totals.sent, totals.known) == (3000, 0)
        assert all(item.transaction.count <= 64 for item in ledger.transactions)
        totals, _ = send(ledger, self.items(3100), group=7)
        assert (totals.sent, totals.known) == (100, 3000)
        assert len(ledger.names) == 3100

    def test_transactions_stay_under_their_limit(self) -> None:
        ledger = FakeLedger()
        send(ledger, self.items(30, size=20_000), group=256)
        assert len(ledger.names) == 30
        assert max(len(item.data) for item in ledger.transactions) <= TRANSACTION_BYTES_MAX

    def test_busy_pending_expired_and_full_are_tried_again(self) -> None:
        ledger = FakeLedger(busy=2, script=["pending", "expired", "queue-full", "author-quota"])
        totals, pauses = send(ledger, self.items(9))
        assert totals.sent == 9
        assert len(ledger.names) == 9
        assert pauses[:2] == [3.0, 3.0]

    def test_a_refusal_is_fatal_with_its_remedy(self) -> None:
        ledger = FakeLedger(script=["author-unknown"])
        with pytest.raises(ConfigError, match="author-unknown") as caught:
            send(ledger, self.items(3))
        assert "--authors" in caught.value.remedy

    def test_what_was_begun_is_finished_when_reading_fails(self) -> None:
        ledger = FakeLedger()

        def broken() -> Any:
            yield from self.items(1500)
            raise ConfigError("cut off")

        with pytest.raises(ConfigError, match="cut off"):
            send(ledger, broken())
        assert len(ledger.names) == sending.CHUNK_EVENTS

    def test_a_row_twice_in_a_file_is_sent_once(self, files: Files) -> None:
        data = (HEADER + "1,2020-07-01T12:00:00,DOT,1,3,,\n" * 2).encode()
        totals = Totals()
        assert len(list(files.rows(data).prepared(files.keys("DOT"), totals))) == 1
        assert totals.known == 1


def test_the_real_requests(shared_data: Path, repository: Path, tmp_path: Path) -> None:
    file, map_file = shared_data / "nyc311_requests.csv.gz", repository / "testnet/maps/nyc311.toml"
    rows = Rows("csv", file, map_file, tmp_path / "rejected.csv")
    agencies = {rows.author.name_of(row.row) for row in rows.good(Totals())}
    make_keys(tmp_path / "keys", rows.author, [name for name in agencies if name])
    rows = Rows("csv", file, map_file, tmp_path / "rejected.csv")
    totals = Totals()
    items = list(rows.prepared(AuthorKeys(tmp_path / "keys", None), totals))
    assert len(items) == 12_126
    assert totals.rejected == totals.known == 0
    assert sum(item.event.place is None for item in items) == 203
    assert len({item.key.public for item in items}) == len(agencies)


@pytest.mark.parametrize("name", ["nyc311", "nycflights", "nycweather"])
def test_the_maps_that_come_with_the_project(repository: Path, name: str) -> None:
    text = (repository / "testnet" / "maps" / f"{name}.toml").read_text(encoding="utf-8")
    assert parse(text, name).attributes["id"].columns
