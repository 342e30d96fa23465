"""`p2pcity ingest`: the command that puts reading, mapping and sending together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from p2pcity.cli.ingest.authors import AUTHORS_FILE, AuthorKeys, make_keys
from p2pcity.cli.ingest.mapping import AuthorRule, EventMap, parse, parse_author
from p2pcity.cli.ingest.report import Progress, Rejects, Totals
from p2pcity.cli.ingest.rows import BadRow, CsvRows, GoodRow, JsonRows, Source
from p2pcity.cli.ingest.sending import Prepared, Seen, Sender, prepare
from p2pcity.cli.ingest.values import RowError
from p2pcity.cli.key_files import read_file
from p2pcity.cli.node_address import find_node, node_option, open_client, token_option
from p2pcity.cli.output import json_option, print_json
from p2pcity.errors import ConfigError, DecodeError
from p2pcity.node.config_reading import load
from p2pcity.node.places import find_config
from p2pcity.wire.cbor import EncodeError
from p2pcity.wire.event import Event

GROUP_MAX: Final = 256
_NO_SALT: Final = bytes(16)
_path = click.Path(path_type=Path)


@click.command()
@click.argument("format_", metavar="FORMAT", type=click.Choice(["csv", "ndjson", "cloudevents"]))
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--map", "map_file", type=_path, help="Mapping file (TOML): columns to attributes.")
@click.option("--keys", "keys_directory", type=_path, help="Directory of <author>.key files.")
@click.option("--key", "key_file", type=_path, help="The one author key [default: the node's].")
@click.option("--make-keys", "is_making_keys", is_flag=True, help="Only make missing author keys.")
@click.option("--rejects", type=_path, help="Where bad rows go [default: FILE.rejected.csv].")
@click.option(
    "--group",
    type=click.IntRange(1, GROUP_MAX),
    default=64,
    show_default=True,
    help="Events in one transaction, at most.",
)
@click.option(
    "--in-flight",
    type=click.IntRange(1, 32),
    default=4,
    show_default=True,
    help="Requests at a time; with 1 the ledger has the file's order.",
)
@click.option("--patience-s", default=60.0, show_default=True, help="How long to try again.")
@node_option
@token_option
@json_option
def ingest(
    format_: str,
    file: Path,
    map_file: Path | None,
    keys_directory: Path | None,
    key_file: Path | None,
    is_making_keys: bool,
    rejects: Path | None,
    group: int,
    in_flight: int,
    patience_s: float,
    node_address: str | None,
    token_file: Path | None,
    is_json: bool,
) -> None:
    """Load a file of records as signed events.

    FORMAT is csv, ndjson, or cloudevents (one JSON event a line); FILE may be .gz or .zip. Run
    it again at any time: what stands on the ledger already is left out. Bad rows are counted
    and written to a file of their own; they end nothing.
    """
    rows = Rows(format_, file, map_file, rejects)
    try:
        if is_making_keys:
            _make_keys(rows, keys_directory, is_json)
            return
        keys = AuthorKeys(keys_directory, key_file or _node_author_key(rows.author))
        address = find_node(node_address)
        totals = Totals()

        from p2pcity.cli.ingest.node_ledger import NodeLedger

        ledger = NodeLedger(lambda: open_client(address, token_file))
        sender = Sender(
            ledger,
            ledger.network(),
            totals,
            group=group,
            in_flight=in_flight,
            patience_s=patience_s,
        )
        with Progress(rows.source, totals, is_quiet=is_json) as progress:
            sender.send_all(rows.prepared(keys, totals), progress.show)
    finally:
        rows.close()
    _print_totals(totals, rows.rejects, is_json)


class Rows:
    """A file, its map, and where the rows go that become no event."""

    def __init__(
        self, format_: str, file: Path, map_file: Path | None, rejects: Path | None
    ) -> None:
        """Open the file and check the map against it; ConfigError for either."""
        map_text = None if map_file is None else _read_text(map_file)
        self.source = Source(file)
        self.rejects = Rejects(rejects or file.with_name(f"{file.name}.rejected.csv"))
        self._map: EventMap | None = None
        self.author = AuthorRule()
        self._rows: CsvRows | JsonRows
        if format_ == "cloudevents":
            if map_text is not None:
                self.author = parse_author(map_text, str(map_file))
            self._rows = JsonRows(self.source, frozenset())
            return
        if map_text is None:
            raise ConfigError(
                f"{format_} needs --map MAP.toml, which says what the columns mean",
                remedy="testnet/maps/ has examples, the README explains them.",
            )
        self._map = parse(map_text, str(map_file))
        self.author = self._map.author
        if format_ == "csv":
            self._rows = CsvRows(self.source, self._map.delimiter, self._map.missing)
        else:
            self._rows = JsonRows(self.source, self._map.missing)
        self._map.check_columns(str(file), self._rows.columns, is_sparse=format_ == "ndjson")

    def close(self) -> None:
        """Close both files."""
        self.source.close()
        self.rejects.close()

    def good(self, totals: Totals) -> Iterator[GoodRow]:
        """Yield the rows that can be read; the others are written down."""
        for row in self._rows:
            totals.rows += 1
            if isinstance(row, BadRow):
                self.rejects.add_bad(row)
                totals.rejected += 1
            else:
                yield row
        if totals.rows == 0:
            raise ConfigError(
                f"{self.source.path} has column names and no rows",
                remedy="Name a file with at least one record.",
            )

    def prepared(self, keys: AuthorKeys, totals: Totals) -> Iterator[Prepared]:
        """Yield each row's event, checked and salted; what this run met already is left out.

        A row that makes no event is written down.
        """
        seen = Seen()
        for row in self.good(totals):
            try:
                event = self._event(row)
                item = prepare(keys.key(self.author.name_of(row.row)), event)
            except (RowError, DecodeError, EncodeError) as error:
                self.rejects.add(row.line, str(error), row.text)
                totals.rejected += 1
                continue
            if seen.add(item.name):
                totals.known += 1
            else:
                yield item

    def _event(self, row: GoodRow) -> Event:
        if self._map is not None:
            return self._map.to_event(row.row)
        from p2pcity.api.cloudevents import read_structured

        return read_structured(row.text.encode()).with_salt(_NO_SALT)


def _make_keys(rows: Rows, directory: Path | None, is_json: bool) -> None:
    if directory is None:
        raise ConfigError("--make-keys needs a directory", remedy="Add --keys DIR.")
    names: dict[str, None] = {}
    for row in rows.good(Totals()):
        try:
            name = rows.author.name_of(row.row)
        except RowError:
            continue  # reported when the file is loaded
        if name is None:
            raise ConfigError(
                "the map has no [author], so there is one key only",
                remedy="Make it with `p2pcity key new FILE`, or add [author] to the map.",
            )
        names[name] = None
        if rows.author.column is None:
            break
    made = make_keys(directory, rows.author, names)
    file = directory / AUTHORS_FILE
    if is_json:
        print_json("ingest-keys", {"made": made, "authors": sorted(names), "file": str(file)})
    else:
        print(f"{len(made)} keys made for {len(names)} authors: {', '.join(sorted(names))}")
        print(f"{file} goes into `p2pcity genesis new --authors`")


def _node_author_key(rule: AuthorRule) -> Path | None:
    file = find_config()
    if rule.column is not None or rule.name is not None or file is None:
        return None
    return load(file).config.node.author_key


def _read_text(file: Path) -> str:
    try:
        return read_file(file, "--map").decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: not UTF-8", remedy="Save it as UTF-8.") from None


def _print_totals(totals: Totals, rejects: Rejects, is_json: bool) -> None:
    if is_json:
        document = {**totals.document(), "rejects": str(rejects.path) if rejects.count else None}
        print_json("ingest", document)
        return
    print(
        f"{totals.rows} rows: {totals.sent} events committed in {totals.transactions} "
        f"transactions, {totals.known} were there already, {totals.rejected} rows rejected"
    )
    if rejects.count:
        print(f"rejected rows, with line and reason: {rejects.path}")
