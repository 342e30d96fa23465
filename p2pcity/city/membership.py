"""Who may write to the ledger: author keys, their members, and the event types they may use.

The state starts at the genesis and is the same on every node at the same height. Under rules
version 1 it does not change: members and keys are those of the genesis.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from p2pcity.wire.genesis import Genesis


@dataclass(frozen=True, slots=True)
class Author:
    """A registered author key; `types` are event types: exact, `prefix.*` or `*`."""

    key: bytes
    name: str
    member: str
    types: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class State:
    """The city at one height; `authors` by public key. Never changed in place."""

    authors: Mapping[bytes, Author]

    @classmethod
    def from_genesis(cls, genesis: Genesis) -> "State":
        """Return the state at height 0."""
        authors = {
            item.key: Author(item.key, item.name, item.member, item.types)
            for item in genesis.authors
        }
        return cls(MappingProxyType(authors))

    def author(self, key: bytes) -> Author | None:
        """Return the author with this public key, None when the city does not know it."""
        return self.authors.get(key)

    def author_types(self, key: bytes) -> tuple[str, ...] | None:
        """Return the event types that this author may use, None when it is not known."""
        author = self.authors.get(key)
        return None if author is None else author.types
