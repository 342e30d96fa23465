"""The table of bad input on the command line: what is done, the exit code, and what is said.

`says` and `remedy` are parts of the one line that the command ends with.
"""

from collections.abc import Callable
from typing import Final

from tests.bad_input_city import Arrange, Command, CommandCase, Place
from tests.bad_input_nodes import CONFIGURATION_CASES, NODE_CASES

MAP: Final = """\
[event]
id = "{number}"
type = "city.test"
source = "/file"
"""
GOOD_CSV: Final = "number,name\n1,one\n"


def _at_the_node(*arguments: str, stdin: bytes = b"") -> Arrange:
    return lambda place: Command((*arguments, "--node", place.city.node.directory), stdin)


def _here(*arguments: str, **environment: str) -> Arrange:
    return lambda place: Command(arguments, environment=environment)


def _ingest(content: str | bytes, map_text: str = MAP, name: str = "rows.csv") -> Arrange:
    def arrange(place: Place) -> Command:
        file = place.write(name, content)
        map_file = place.write("map.toml", map_text)
        key = place.city.node.directory / "author.key"
        node = place.city.node.directory
        return Command(("ingest", "csv", file, "--map", map_file, "--key", key, "--node", node))

    return arrange


def _ended_node(place: Place) -> Command:
    return Command(("status", "--node", place.new_node()))


def _genesis(spoil: Callable[[bytes], bytes]) -> Arrange:
    def arrange(place: Place) -> Command:
        data = (place.city.node.directory / "genesis.cbor").read_bytes()
        return Command(("genesis", "show", place.write("genesis.cbor", spoil(data))))

    return arrange


def _card(spoil: Callable[[bytes], bytes]) -> Arrange:
    def arrange(place: Place) -> Command:
        data = (place.city.node.directory / "node.card").read_bytes()
        card = place.write("node.card", spoil(data))
        return Command(("genesis", "new", "--name", "n", "--card", card))

    return arrange


def _last_flipped(data: bytes) -> bytes:
    return data[:-1] + bytes((data[-1] ^ 1,))


def _submit_file(content: str | bytes) -> Arrange:
    def arrange(place: Place) -> Command:
        file = place.write("events.json", content)
        return Command(("submit", "-f", file, "--node", place.city.node.directory))

    return arrange


CLIENT_CASES: Final = (
    CommandCase(
        "unknown command", 2, "no command 'sumbit'", "Did you mean submit?", _here("sumbit")
    ),
    CommandCase(
        "unknown topic", 2, "'votes' is not one of", "'rest'", _here("bw", "--topic", "votes")
    ),
    CommandCase("unknown schema", 2, "'stats' is not one of", "'status'", _here("schema", "stats")),
    CommandCase(
        "traffic of nobody",
        2,
        "'nobody' is no peer",
        "p2pcity peers -v",
        lambda place: Command(
            ("bw", "--peer", "nobody", "--node", str(place.city.network.nodes[0].socket))
        ),
    ),
    CommandCase("unknown option", 2, "--jsn", "p2pcity status --help", _here("status", "--jsn")),
    CommandCase(
        "unreachable node, socket",
        4,
        "no node answers at",
        "p2pcity run",
        _here("status", "--node", "nowhere.sock"),
    ),
    CommandCase("a node that does not run", 4, "no node answers at", "p2pcity run", _ended_node),
    CommandCase(
        "unreachable node, TCP",
        4,
        "no node answers at http://127.0.0.1:9",
        "name another one",
        _here("status", "--node", "http://127.0.0.1:9"),
    ),
    CommandCase(
        "no node named",
        2,
        "which node?",
        "--node",
        _here("status", HOME="/nonexistent", XDG_CONFIG_HOME="/nonexistent"),
    ),
    CommandCase(
        "wrong --node URL",
        2,
        "ftp://localhost is no node's address",
        "http://HOST:PORT",
        _here("status", "--node", "ftp://localhost"),
    ),
    CommandCase(
        "--node names the port for peers",
        4,
        "no node answers at",
        "name another one",
        lambda place: Command(
            (
                *("status", "--node"),
                f"http://127.0.0.1:{place.city.node.config.net.listen[0].rpartition('/')[2]}",
            )
        ),
    ),
    CommandCase(
        "submit with bad JSON in --data",
        2,
        "--data is no JSON",
        "needs its quotes",
        _at_the_node("submit", "--type", "city.test", "--data", "{text}"),
    ),
    CommandCase(
        "submit a file that is no JSON", 2, "record 1 is no JSON", "quotes", _submit_file("{,}")
    ),
    CommandCase("submit an empty file", 2, "is empty", "CloudEvents JSON", _submit_file(" \n")),
    CommandCase(
        "submit a file in Latin-1", 2, "not UTF-8", "UTF-8", _submit_file(b'{"id":"\xe9"}')
    ),
    CommandCase(
        "submit an event without source",
        1,
        "source is not a text",
        "openapi.json",
        _submit_file('{"specversion": "1.0", "id": "1", "type": "city.test"}'),
    ),
    CommandCase(
        "submit nothing", 2, "either -f FILE or --type", "Use -f -", _at_the_node("submit")
    ),
    CommandCase(
        "submit what the node refuses",
        1,
        "signature",
        "protocol/registry.md",
        lambda place: _submit_file(_last_event_swapped(place))(place),
    ),
    CommandCase(
        "query with a bad bbox",
        1,
        "bbox: not west,south,east,north",
        "openapi.json",
        _at_the_node("query", "--bbox", "1,2,3"),
    ),
    CommandCase(
        "query with a bad time",
        1,
        "since: not an RFC 3339 timestamp",
        "openapi.json",
        _at_the_node("query", "--since", "yesterday"),
    ),
    CommandCase(
        "a transaction id that is none",
        1,
        "not 64 hexadecimal digits",
        "openapi.json",
        _at_the_node("ledger", "transaction", "abc"),
    ),
    CommandCase(
        "a block that is not there",
        1,
        "no block at this height",
        "Height",
        _at_the_node("ledger", "block", "999999"),
    ),
    CommandCase(
        "tail from nowhere",
        2,
        "neither a height nor a cursor",
        "Use a number",
        _at_the_node("tail", "--from", "start"),
    ),
    CommandCase(
        "genesis with a bit flipped in its body",
        2,
        "genesis.cbor: ",
        "sent again",
        _genesis(lambda data: data[:6] + bytes((data[6] ^ 0x80,)) + data[7:]),
    ),
    CommandCase(
        "a card with a garbled signature",
        2,
        "card's signature is wrong",
        "sent again",
        _card(_last_flipped),
    ),
    CommandCase(
        "a card that is none",
        2,
        "node.card: not a COSE_Sign1",
        "sent again",
        _card(lambda data: b"\x80"),
    ),
    CommandCase(
        "an author that is not understood",
        2,
        "--author parks is not understood",
        "MEMBER/NAME=PUBLIC-KEY",
        lambda place: Command(
            (
                *("genesis", "new", "--name", "n", "--author", "parks"),
                *("--card", place.city.node.directory / "node.card"),
            )
        ),
    ),
    CommandCase("ingest an empty CSV", 2, "rows.csv is empty", "Name a file", _ingest("")),
    CommandCase(
        "ingest a CSV of column names alone", 2, "no rows", "at least one", _ingest("number,name\n")
    ),
    CommandCase(
        "ingest with a wrong column in the map",
        2,
        "numer",
        "number",
        _ingest(GOOD_CSV, MAP.replace("{number}", "{numer}")),
    ),
    CommandCase(
        "ingest with an unknown key in the map",
        2,
        "sourec",
        "source",
        _ingest(GOOD_CSV, MAP.replace("source", "sourec")),
    ),
    CommandCase(
        "ingest a CSV whose head is not UTF-8",
        2,
        "line 1: not UTF-8",
        "Convert the file to UTF-8",
        _ingest(b"n\xe9mber\n1\n"),
    ),
    CommandCase(
        "ingest a .gz that is none",
        2,
        "rows.csv.gz",
        "fetch it again",
        _ingest(GOOD_CSV, name="rows.csv.gz"),
    ),
    CommandCase(
        "ingest without a map",
        2,
        "csv needs --map",
        "testnet/maps/",
        lambda place: Command(
            (
                *("ingest", "csv", place.write("rows.csv", GOOD_CSV)),
                *("--node", place.city.node.directory),
            )
        ),
    ),
    CommandCase(
        "ingest without the authors' keys",
        2,
        "no directory of keys",
        "--make-keys",
        lambda place: Command(
            (
                *("ingest", "csv", place.write("rows.csv", GOOD_CSV), "--map"),
                place.write("map.toml", MAP + '[author]\ncolumn = "name"\nmember = "m"\n'),
                *("--node", place.city.node.directory),
            )
        ),
    ),
    CommandCase(
        "testnet where none is",
        2,
        "holds no network",
        "p2pcity testnet init",
        _here("testnet", "up", "."),
    ),
)


def _last_event_swapped(place: Place) -> bytes:
    carried = place.city.carried()
    position = carried.rindex(place.city.author.public)
    garbled = bytearray(carried)
    # Behind the key: payload and signature. The last byte of the signature is garbled.
    end = carried.index(b"\x58\x40", position) + 2 + 63
    garbled[end] ^= 1
    return bytes(garbled)


COMMAND_CASES: Final = (*CONFIGURATION_CASES, *NODE_CASES, *CLIENT_CASES)
