"""Bundles of one author's events, and their signing: an integrator's side of the protocol."""

import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from p2pcity.api.service import EventInput
from p2pcity.cli.demo.events import AuthoredEvent
from p2pcity.crypto.keys import PrivateKey
from p2pcity.wire import event as event_wire
from p2pcity.wire import transaction as transaction_wire
from p2pcity.wire.limits import TRANSACTION_BYTES_MAX

EVENTS_PER_BUNDLE: Final = 12
LIFETIME_MS: Final = 60 * 60 * 1000
# What a transaction has beside its events (COSE_Sign1, payload, heads), and the head of each.
_OVERHEAD_BYTES: Final = 1024
_EVENT_OVERHEAD_BYTES: Final = 5

Name = tuple[str, str, str]
"""What names an event on the ledger: its author's public key in hex, its source and its id."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """Events that one author signs together."""

    author: str
    events: tuple[EventInput, ...]


@dataclass(frozen=True, slots=True)
class Signed:
    """A transaction ready to be sent, as often as need be: `id` is in hex, `data` are its bytes."""

    id: str
    data: bytes
    author: str
    names: tuple[Name, ...]


def bundle(events: Iterable[AuthoredEvent], events_max: int = EVENTS_PER_BUNDLE) -> list[Bundle]:
    """Cut events into bundles of one author each, in the order in which the bundles fill up."""
    bundles: list[Bundle] = []
    open_: dict[str, list[EventInput]] = {}
    sizes: dict[str, int] = {}
    for item in events:
        encoded = event_wire.encode(item.event.with_salt(bytes(event_wire.SALT_BYTES)))
        size = len(encoded) + _EVENT_OVERHEAD_BYTES
        own = open_.setdefault(item.author, [])
        if own and sizes[item.author] + size > TRANSACTION_BYTES_MAX - _OVERHEAD_BYTES:
            bundles.append(Bundle(item.author, tuple(own)))
            own.clear()
        sizes[item.author] = size + (sizes[item.author] if own else 0)
        own.append(item.event)
        if len(own) == events_max:
            bundles.append(Bundle(item.author, tuple(own)))
            own.clear()
    bundles.extend(Bundle(author, tuple(own)) for author, own in open_.items() if own)
    return bundles


def sign(item: Bundle, key: PrivateKey, network: bytes) -> Signed:
    """Salt the events and sign them as one transaction that expires in an hour."""
    carried = transaction_wire.make(
        key,
        network,
        [event.with_salt(secrets.token_bytes(event_wire.SALT_BYTES)) for event in item.events],
        time.time_ns() // 1_000_000 + LIFETIME_MS,
        secrets.token_bytes(transaction_wire.NONCE_BYTES),
    )
    author = key.public.hex()
    names = tuple((author, event.source, event.id) for event in item.events)
    return Signed(carried.transaction.id.hex(), carried.data, item.author, names)
