"""A small city for tests: one member, one author for everything, one for permits; and blocks."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from p2pcity.city.membership import State
from p2pcity.crypto.keys import PrivateKey
from p2pcity.errors import ChangeRefused
from p2pcity.ordering.members import apply_bytes
from p2pcity.wire import block as block_wire
from p2pcity.wire import change as change_wire
from p2pcity.wire import genesis as genesis_wire
from p2pcity.wire import transaction as transaction_wire
from p2pcity.wire.block import Block
from p2pcity.wire.change import Change
from p2pcity.wire.event import Event
from p2pcity.wire.genesis import Genesis, GenesisAuthor, GenesisNode, Member
from p2pcity.wire.limits import RULES_VERSION
from p2pcity.wire.raft import Entry
from p2pcity.wire.transaction import Carried

NOW_MS: Final = 1_780_000_000_000
NODE: Final = PrivateKey.from_seed(b"n" * 32)
AUTHOR: Final = PrivateKey.from_seed(b"a" * 32)
CLERK: Final = PrivateKey.from_seed(b"c" * 32)
STRANGER: Final = PrivateKey.from_seed(b"s" * 32)


def make_genesis(name: str = "test") -> Genesis:
    """Return a genesis with AUTHOR (`*`) and CLERK (`permit.*`)."""
    member = Member(
        "works",
        (GenesisNode(NODE.public, b"i" * 16, "orderer", (), "works"),),
        (
            GenesisAuthor(AUTHOR.public, "all", ("*",), "works"),
            GenesisAuthor(CLERK.public, "permits", ("permit.*",), "works"),
        ),
    )
    return genesis_wire.make(name, NOW_MS - 1000, b"g" * 16, [member])


class Chain:
    """Makes transactions and blocks, each on top of the last; also the log they lie in."""

    def __init__(self, genesis: Genesis | None = None) -> None:
        self.genesis = make_genesis() if genesis is None else genesis
        self.state = State.from_genesis(self.genesis)
        self.blocks: list[Block] = []
        self._payloads: list[bytes] = []
        self._number = 0

    @property
    def last_index(self) -> int:
        return len(self._payloads)

    def term(self, index: int) -> int:
        return 1

    def entries(self, low: int, high: int, bytes_max: int) -> list[Entry]:
        return [Entry(1, index, self._payloads[index - 1]) for index in range(low, high)]

    def pairs(self, first: int = 1) -> list[tuple[int, bytes | None]]:
        """Return (Raft index, payload) of all entries from `first` on."""
        return list(enumerate(self._payloads[first - 1 :], first))

    def event(self, **attributes: object) -> Event:
        """Return a new event; `attributes` replace what it has by default."""
        self._number += 1
        values: dict[str, object] = {
            "salt": self._number.to_bytes(16, "big"),
            "id": f"event-{self._number}",
            "type": "permit.granted",
            "source": "urn:works",
        }
        return Event(**(values | attributes))  # type: ignore[arg-type]  # the test knows

    def carried(
        self,
        *events: Event,
        key: PrivateKey = AUTHOR,
        expires_ms: int = NOW_MS + 60_000,
        network: bytes | None = None,
    ) -> Carried:
        """Return a signed transaction of `events` (one new event by default)."""
        self._number += 1
        return transaction_wire.make(
            key,
            self.genesis.network if network is None else network,
            events or (self.event(),),
            expires_ms,
            self._number.to_bytes(16, "big"),
        )

    def add(self, *carried: Carried, time_ms: int = NOW_MS) -> Block:
        """Make the next block and put it into the log as the next entry."""
        block = self.make(carried, time_ms=time_ms)
        self.blocks.append(block)
        self._payloads.append(block.data)
        return block

    def add_change(self, *changes: Change) -> None:
        """Put a block for each change into the log; what does not fit is there all the same."""
        for item in changes:
            data = change_wire.encode(item)
            block = self.make([], change=data)
            self.blocks.append(block)
            self._payloads.append(block.data)
            with suppress(ChangeRefused):
                self.state = apply_bytes(self.state, data)

    def add_nothing(self) -> None:
        """Put an entry without a block into the log."""
        self._payloads.append(b"")

    def make(
        self,
        carried: Sequence[Carried],
        *,
        time_ms: int = NOW_MS,
        height: int | None = None,
        parent: bytes | None = None,
        rules: int = RULES_VERSION,
        change: bytes | None = None,
        epoch: int | None = None,
        voters: bytes | None = None,
    ) -> Block:
        """Make a block on top of the last one, or a wrong one."""
        head = self.blocks[-1].hash if self.blocks else self.genesis.network
        return block_wire.make(
            len(self.blocks) + 1 if height is None else height,
            head if parent is None else parent,
            time_ms,
            carried,
            self.state.epoch if epoch is None else epoch,
            self.state.voters_digest if voters is None else voters,
            rules,
            change,
        )
