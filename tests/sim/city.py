"""Who takes part in a seed, and transactions signed beforehand: made once a process.

Signing and verifying cost more than all the rest of a seed, so the good transactions are kept
for all seeds of a process, each verified once. What is pure and asked by every node alike
(decoding a block, cutting it in two for the log) is remembered by its bytes as well.
"""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Final, TypeVar
from unittest import mock

from p2pcity.crypto.digest import sha256
from p2pcity.crypto.keys import PrivateKey, peer_id
from p2pcity.ledger import base_incoming, base_store, segment_file
from p2pcity.ordering.apply import Examined, examine
from p2pcity.wire import block as block_wire
from p2pcity.wire import genesis as genesis_wire
from p2pcity.wire import transaction as transaction_wire
from p2pcity.wire.event import Event
from p2pcity.wire.genesis import GenesisAuthor, GenesisNode, Member
from p2pcity.wire.transaction import Carried
from tests.short_intervals import short_intervals
from tests.sim.files import MemorySystem, MemoryTrees
from tests.sim.world import START_MS

HOUR_MS: Final = 3_600_000
_AUTHORS: Final = tuple(PrivateKey.from_seed(bytes([65 + n]) * 32) for n in range(3))
_CLERK: Final = PrivateKey.from_seed(b"c" * 32)
_STRANGER: Final = PrivateKey.from_seed(b"s" * 32)
_MEMO_MAX: Final = 4096
BASE_INTERVAL: Final = 8
"""A base stands at each multiple of so many blocks."""
SPARES_MAX: Final = 3
"""How many nodes may join a city later."""

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Sample:
    """A transaction that clients may send; `is_valid`: it may stand on the ledger.

    `names` are (author, source, id) of its events, in order.
    """

    data: bytes
    id: bytes
    is_valid: bool
    expires_ms: int
    names: tuple[tuple[bytes, str, str], ...] = ()


class City:
    """A genesis of so many orderers, keys of nodes that may join, and signed transactions."""

    def __init__(self, orderers: int) -> None:
        numbers = range(orderers + SPARES_MAX)
        self.orderers = orderers
        self.keys = [PrivateKey.from_seed(b"node %02d" % n + b"." * 25) for n in numbers]
        self.names = tuple(peer_id(key.public) for key in self.keys)
        self.incarnations = [bytes([n + 1]) * 16 for n in numbers]
        self.genesis = genesis_wire.make(
            f"simulated {orderers}", START_MS - 1000, b"g" * 16, [self._member()]
        )
        self._known: dict[bytes, Examined] = {}
        self._samples: dict[tuple[str, int], Sample] = {}

    def _member(self) -> Member:
        return Member(
            "works",
            tuple(
                GenesisNode(key.public, incarnation, "orderer", (), "works", f"node {number}")
                for number, (key, incarnation) in enumerate(
                    zip(self.keys[: self.orderers], self.incarnations, strict=False)
                )
            ),
            (
                *(
                    GenesisAuthor(key.public, f"a{n}", ("*",), "works")
                    for n, key in enumerate(_AUTHORS)
                ),
                GenesisAuthor(_CLERK.public, "clerk", ("permit.*",), "works"),
            ),
        )

    def examine(self, data: bytes, digest: bytes) -> Examined:
        """`wire.transaction.examine`, once for the same bytes in this process."""
        known = self._known.get(digest)
        if known is None:
            known = examine(data, self.genesis.network)
            self._known[digest] = known
        return known

    def lookup(self, digest: bytes) -> Examined | None:
        """What is known of bytes with this digest (`ordering.apply.Lookup`)."""
        return self._known.get(digest)

    def good(self, number: int) -> Sample:
        """A transaction that any leader should order, valid for 20 hours."""
        return self._sample("good", number, _AUTHORS[number % 3], START_MS + 20 * HOUR_MS)

    def short(self, number: int, expires_s: int) -> Sample:
        """A transaction that expires so many seconds after the beginning of the seed."""
        number = number * 1000 + expires_s
        return self._sample("short", number, _AUTHORS[0], START_MS + expires_s * 1000)

    def forbidden(self, number: int) -> Sample:
        """A transaction of a stranger, or of a clerk about what is not the clerk's."""
        key = _STRANGER if number % 2 else _CLERK
        return self._sample("alarm", number, key, START_MS + 20 * HOUR_MS, is_valid=False)

    def garbled(self, number: int, random: Random) -> Sample:
        """A copy of a good transaction with some bits turned over: the same id, other bytes."""
        good = self.good(number)
        data = bytearray(good.data)
        # The last bytes are the events', those before the middle the signed part's.
        data[random.randrange(len(data) // 3, len(data))] ^= 1 << random.randrange(8)
        return Sample(bytes(data), b"", False, good.expires_ms)

    def _sample(
        self, kind: str, number: int, key: PrivateKey, expires_ms: int, *, is_valid: bool = True
    ) -> Sample:
        sample = self._samples.get((kind, number))
        if sample is None:
            carried = self._make(kind, number, key, expires_ms)
            self._known[carried.digest] = examine(carried.data, self.genesis.network)
            names = tuple(
                (key.public, event.source, event.id)
                for event in carried.decoded_events()
                if event is not None
            )
            sample = Sample(carried.data, carried.transaction.id, is_valid, expires_ms, names)
            self._samples[(kind, number)] = sample
        return sample

    def _make(self, kind: str, number: int, key: PrivateKey, expires_ms: int) -> Carried:
        seed = f"{kind} {number}"
        # Every 13th names an event of its forerunner again: ordered, and in no view.
        name = number - 1 if kind == "good" and number % 13 == 12 else number
        events = [
            Event(
                salt=sha256(f"{seed} {part}".encode())[:16],
                id=f"{name}-{part}",
                type="permit.granted" if kind != "alarm" else "alarm.raised",
                source=f"urn:{kind}:{name % 3}",
            )
            for part in range(1 + number % 2)
        ]
        nonce = sha256(seed.encode())[16:]
        return transaction_wire.make(key, self.genesis.network, events, expires_ms, nonce)


@cache
def city(orderers: int) -> City:
    """The city of so many orderers, one a process."""
    return City(orderers)


def _remembered(function: Callable[..., ResultT]) -> Callable[..., ResultT]:
    """`function`, pure, with its newest results kept by the arguments."""
    kept: dict[tuple[Hashable, ...], ResultT] = {}

    def call(*arguments: Hashable) -> ResultT:
        result = kept.get(arguments)
        if result is None:
            result = function(*arguments)
            if len(kept) >= _MEMO_MAX:
                del kept[next(iter(kept))]
            kept[arguments] = result
        return result

    return call


@contextmanager
def memory_installed() -> Iterator[None]:
    """Let the ledger write to memory, with a base every few blocks; remember what is pure."""
    system = MemorySystem()
    with (
        short_intervals(BASE_INTERVAL),
        mock.patch.object(segment_file, "os", system),
        mock.patch.object(base_store, "os", system),
        mock.patch.object(base_incoming, "os", system),
        mock.patch.object(base_incoming, "shutil", MemoryTrees),
        mock.patch.object(block_wire, "decode", _remembered(block_wire.decode)),
        mock.patch.object(block_wire, "decode_header", _remembered(block_wire.decode_header)),
        mock.patch.object(block_wire, "split", _remembered(block_wire.split)),
        mock.patch.object(block_wire, "join", _remembered(block_wire.join)),
    ):
        yield
