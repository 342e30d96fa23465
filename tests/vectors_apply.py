"""Vectors of apply: what blocks on top of a genesis do to the ledger (protocol/06-block.md)."""

from collections.abc import Iterator, Mapping
from typing import Any

from p2pcity.city.membership import State
from p2pcity.crypto import merkle
from p2pcity.errors import DecodeError, LedgerError
from p2pcity.ordering.apply import AppliedBlock, Applier, Tip
from p2pcity.wire import block, cbor, genesis, transaction
from p2pcity.wire.block import Block
from p2pcity.wire.event import Event
from p2pcity.wire.genesis import Genesis, GenesisAuthor, GenesisNode, Member
from p2pcity.wire.transaction import Carried
from tests.change_cases import change_cases
from tests.vector_case import Case, Outcome, collect, compare
from tests.vectors_event import FULL, MINIMAL
from tests.vectors_genesis import AUTHORS, NODES, STRANGER
from tests.vectors_transaction import make_raw

AREA = "apply"
SPEC = "06-block.md"
TIME_MS = 1_767_225_600_000
CLERK, BARRED = AUTHORS
_OTHER = Event(bytes(16), "2", "city.permit.granted", "urn:city:permits")


class Index:
    """What stands on the ledger so far, in memory."""

    def __init__(self) -> None:
        self.ids: set[bytes] = set()
        self.names: set[bytes] = set()

    def has_transaction(self, id: bytes, /) -> bool:
        """Whether it was applied."""
        return id in self.ids

    def has_event(self, name_key: bytes, /) -> bool:
        """Whether the name is taken."""
        return name_key in self.names

    def add(self, applied: AppliedBlock) -> None:
        """Take in a block."""
        for item in applied.transactions:
            if item.outcome == "applied" and item.carried is not None:
                self.ids.add(item.carried.id)
                self.names.update(name for name in item.names if name is not None)


def run(input: Mapping[str, Any]) -> Outcome:
    """Apply the blocks in order on top of the genesis."""
    city = genesis.decode(bytes.fromhex(input["genesis"]))
    applier = Applier(city.network, State.from_genesis(city), Tip.from_genesis(city))
    index = Index()
    done: list[AppliedBlock] = []
    try:
        for number, data in enumerate(input["blocks"], 1):
            decoded = block.decode(bytes.fromhex(data))
            done.append(applier.apply(number, decoded, index, lambda _: None))
            index.add(done[-1])
    except DecodeError as error:
        return Outcome("reject", error.reason)
    except LedgerError:
        return Outcome("reject")
    shown: dict[str, Any] = {
        "outcomes": [[item.outcome for item in x.transactions] for x in done],
        "duplicate_events": [[sorted(i.duplicate_events) for i in x.transactions] for x in done],
        "changes": [None if x.block.change is None else not x.change_refusal for x in done],
        "voters": [x.state.voters_digest.hex() for x in done],
        "tree_size": applier.tip.frontier.size,
        "root": applier.tip.frontier.root.hex(),
        "head": applier.tip.hash.hex(),
    }
    return Outcome("accept", None, shown)


def cases() -> dict[str, dict[str, Any]]:
    """The files of this area."""
    return collect(_cases())


def check(case: Mapping[str, Any]) -> None:
    """Judge one case with the code."""
    compare(run(case["input"]), case)


def _city() -> genesis.Genesis:
    """One member: a clerk for permits, and an author who may write nothing."""
    node = GenesisNode(NODES[0].public, bytes(16), "orderer", (), "Roads", "1")
    authors = (
        GenesisAuthor(CLERK.public, "permits desk", ("city.permit.*",), "Roads"),
        GenesisAuthor(BARRED.public, "nothing yet", (), "Roads"),
    )
    return genesis.make("example city", TIME_MS, bytes(16), [Member("Roads", (node,), authors)])


_CITY = _city()


def _make(*events: Event, nonce: int = 0, key: Any = CLERK, **more: Any) -> Carried:
    network = more.get("network", _CITY.network)
    expires_ms = more.get("expires_ms", TIME_MS + 60_000)
    return transaction.make(
        key, network, events or (MINIMAL,), expires_ms, nonce.to_bytes(16, "big")
    )


class _Item:
    """Carried bytes that need not be right, as `block.make` takes them."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.leaf = merkle.leaf_hash(transaction.signed_part(data))


def _chain(*contents: list[Any], time_ms: int = TIME_MS) -> list[Block]:
    blocks: list[Block] = []
    for content in contents:
        parent = blocks[-1].hash if blocks else _CITY.network
        items = [_Item(x) if isinstance(x, bytes) else x for x in content]
        blocks.append(_block(len(blocks) + 1, parent, items, time_ms))
    return blocks


def _block(
    height: int,
    parent: bytes,
    items: Any = (),
    time_ms: int = TIME_MS,
    rules: int = 1,
    epoch: int = 0,
    voters: bytes = _CITY.voters_digest,
) -> Block:
    return block.make(height, parent, time_ms, items, epoch, voters, rules)


def _case(name: str, blocks: list[Block], comment: str, is_followed: bool = True) -> Case:
    return make_case(_CITY, name, blocks, comment, "apply" if is_followed else "")


def make_case(city: Genesis, name: str, blocks: list[Block], comment: str, section: str) -> Case:
    """A case of `section` of the document; without one, blocks that are not followed."""
    input = {
        "genesis": genesis.encode(city).hex(),
        "blocks": [item.data.hex() for item in blocks],
    }
    if not section:
        return Case(AREA, name, f"{SPEC}#following", comment, input, "reject")
    intermediates = run(input).intermediates
    return Case(AREA, name, f"{SPEC}#{section}", comment, input, intermediates=intermediates)


def _cases() -> Iterator[Case]:
    good, second = _make(), _make(_OTHER, nonce=1)
    yield _case("applied", _chain([good, second]), "Two leaves.")
    yield _case("no-transactions", _chain([], [good]), "A block may be empty.")
    yield _case("duplicate", _chain([good], [good]), "On the ledger already.")
    yield _case("duplicate-in-block", _chain([good, good]), "Earlier in the same block.")
    yield from _invalid(good)
    at, past = (_make(nonce=n, expires_ms=TIME_MS - n) for n in (0, 1))
    yield _case("expires-at-block-time", _chain([at]), "That very millisecond is allowed.")
    yield _case("expired", _chain([past]), "A millisecond too late.")
    yield from _authors(past)
    yield from _names(good)
    yield from _not_followed(good)
    yield from change_cases(make_case)


def _invalid(good: Carried) -> Iterator[Case]:
    signed, events = good.transaction.data, list(good.events)
    join = transaction.join_carried
    garbled = join(signed[:-1] + bytes([signed[-1] ^ 1]), events)
    changes = {"network": _CITY.network}
    broken = cbor.encode([bytes(16), {"id": "1", "type": "", "source": "city"}])
    extra = [*events, *_make(_OTHER).events]
    large = [*events, bytes(64 * 1024)]
    for name, data in (
        ("size", join(signed, large)),
        ("malformed", join(signed, extra)),
        ("malformed-trailing-byte", good.data + b"\x00"),
        ("network", _make(network=bytes(32)).data),
        ("events-missing", join(signed, [])),
        ("events-missing-withheld", join(signed, good.leaf_hashes)),
        ("root", join(signed, _make(_OTHER).events)),
        ("signature", garbled),
        ("event-malformed", cbor.encode(make_raw([broken], changes))),
    ):
        comment = "It has no effect; the true one behind it is applied."
        yield _case(f"invalid-{name}", _chain([data, good]), comment)
    expired = _make(expires_ms=TIME_MS - 1).data
    comment = "The first rule that is broken names the outcome."
    yield _case("invalid-and-expired", _chain([expired[:200] + b"\x00" + expired[201:]]), comment)


def _authors(past: Carried) -> Iterator[Case]:
    yield _case("author-unknown", _chain([_make(key=STRANGER)]), "Not in the genesis.")
    yield _case("author-without-types", _chain([_make(key=BARRED)]), "May write nothing.")
    comment = "One of two events has a type of another desk."
    yield _case("type-not-allowed", _chain([_make(MINIMAL, FULL)]), comment)
    late = _make(key=STRANGER, expires_ms=TIME_MS - 1)
    yield _case("expired-and-unknown", _chain([late]), "Expired comes first.")
    again = _make(expires_ms=TIME_MS)
    blocks = _chain([again])
    blocks.append(_block(2, blocks[0].hash, [again], TIME_MS + 1))
    yield _case("expired-and-duplicate", blocks, "Expired comes first.")
    comment = "What was dropped takes no id and no event's name."
    yield _case("dropped-then-applied", _chain([past], [_make(nonce=1)]), comment)


def _names(good: Carried) -> Iterator[Case]:
    comment = "The same name (author, source, id): the event is a duplicate, its transaction not."
    yield _case("event-again", _chain([good], [_make(nonce=1)]), comment)
    yield _case("event-again-in-block", _chain([good, _make(nonce=1)]), comment)
    twice = _make(MINIMAL, _OTHER, MINIMAL)
    yield _case("event-twice-in-transaction", _chain([twice]), "The third is a duplicate.")
    other = Event(bytes(16), "1", "city.permit.granted", "urn:city:elsewhere")
    yield _case("event-other-source", _chain([good, _make(other)]), "Another source: another name.")


def _not_followed(good: Carried) -> Iterator[Case]:
    [first] = _chain([good])
    network = _CITY.network
    table: tuple[tuple[str, list[Block], str], ...] = (
        ("height-2-first", [_block(2, network)], "Height 1 comes first."),
        ("height-skipped", [first, _block(3, first.hash)], "Height 2 is missing."),
        ("height-again", [first, _block(1, network)], "Height 1 stands already."),
        ("parent-other", [_block(1, bytes(32))], "Not on the network id."),
        ("parent-genesis", [first, _block(2, network)], "Not on the block below."),
        ("time-before-genesis", [_block(1, network, (), TIME_MS - 1)], "Time does not go back."),
        ("time-before-parent", [first, _block(2, first.hash, (), TIME_MS - 1)], "Nor later on."),
        ("rules-2", [_block(1, network, rules=2)], "Rules that version 1 does not know."),
        ("epoch-1", [_block(1, network, epoch=1)], "Nobody recovered a quorum."),
        ("voters-other", [_block(1, network, voters=bytes(32))], "Not those of the genesis."),
    )
    for name, blocks, comment in table:
        yield _case(name, blocks, comment, is_followed=False)
