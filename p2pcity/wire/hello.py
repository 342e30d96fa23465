"""Hello: the first exchange on every connection (protocol/04-gossip.md, cddl/hello.cddl).

Each side sends a signed Hello and answers the other's with ok or a reason; nothing else is
said before. Unknown fields of the payload are ignored, so that a later release can add some.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from p2pcity.crypto.digest import digest
from p2pcity.crypto.keys import PrivateKey
from p2pcity.errors import DecodeError
from p2pcity.wire import cbor, cose, limits
from p2pcity.wire.fields import (
    TIME_MS_MAX,
    read_array,
    read_bool,
    read_bytes,
    read_map,
    read_text,
    read_uint,
)
from p2pcity.wire.genesis import ADDRESSES_MAX, INCARNATION_BYTES, KEY_BYTES, check_address
from p2pcity.wire.limits import HELLO_BYTES_MAX
from p2pcity.wire.promise import Promise, listed, read_promises

CONTENT_TYPE: Final = "application/p2pcity-hello+cbor"
PARAMETERS_DOMAIN: Final = "p2pcity/parameters/1"
RELEASE_BYTES_MAX: Final = 64

WRONG_NETWORK: Final = "wrong-network"
PROTOCOL_TOO_OLD: Final = "protocol-too-old"
PROTOCOL_TOO_NEW: Final = "protocol-too-new"
OTHER_PARAMETERS: Final = "other-parameters"
OLDER_EPOCH: Final = "older-epoch"
NEWER_EPOCH: Final = "newer-epoch"


@dataclass(frozen=True, slots=True)
class Hello:
    """What a node says about itself; `height` is its newest applied block.

    `protocol_oldest` to `protocol` are the protocol versions it speaks; `parameters` is the
    digest of the shared limits; `time_ms` its clock, Unix milliseconds. `last_index` and `term`
    are where its raft log stands (None: it does not say), `promises` what it knows of voters.
    `epoch` is the one in which it is a member, None while it is none.
    """

    network: bytes
    protocol: int
    protocol_oldest: int
    release: str
    parameters: bytes
    incarnation: bytes
    height: int
    addresses: tuple[str, ...]
    time_ms: int
    last_index: int | None = None
    term: int | None = None
    promises: tuple[Promise, ...] = ()
    epoch: int | None = None


@dataclass(frozen=True, slots=True)
class HelloAnswer:
    """Ok, or a reason of the registry with a sentence for the operator's log."""

    is_ok: bool
    reason: str = ""
    detail: str = ""

    def encode(self) -> bytes:
        """Return the answer's bytes."""
        return cbor.encode({"ok": self.is_ok, "reason": self.reason, "detail": self.detail})

    @classmethod
    def decode(cls, data: bytes) -> "HelloAnswer":
        """Return the answer in `data`; DecodeError (`size` or `malformed`)."""
        _check_size(data)
        fields = read_map(cbor.decode(data), "the answer to hello")
        return cls(
            read_bool(fields.get("ok"), "ok"),
            read_text(fields.get("reason"), "reason", 64),
            read_text(fields.get("detail"), "detail", 1024),
        )


def make(key: PrivateKey, hello: Hello) -> bytes:
    """Return `hello` signed by the node key `key`."""
    payload: dict[str, object] = {
        "network": hello.network,
        "protocol": hello.protocol,
        "protocol_oldest": hello.protocol_oldest,
        "release": hello.release,
        "parameters": hello.parameters,
        "incarnation": hello.incarnation,
        "height": hello.height,
        "addresses": list(hello.addresses),
        "time": hello.time_ms,
    }
    if hello.last_index is not None:
        payload["last_index"] = hello.last_index
    if hello.term is not None:
        payload["term"] = hello.term
    if hello.epoch is not None:
        payload["epoch"] = hello.epoch
    if hello.promises:
        payload["promises"] = listed(hello.promises)
    return cose.sign(key, CONTENT_TYPE, cbor.encode(payload))


def decode(data: bytes) -> tuple[bytes, Hello]:
    """Return (node key, hello) of `data`, the signature verified.

    The caller compares the key with the connection's peer id: a hello can be replayed by
    others. Raises DecodeError: `size`, `signature`, else `malformed`.
    """
    _check_size(data)
    signed = cose.decode(data, CONTENT_TYPE)
    fields = read_map(cbor.decode(signed.payload), "hello")
    addresses = read_array(fields.get("addresses"), "the addresses", length_max=ADDRESSES_MAX)
    hello = Hello(
        network=read_bytes(fields.get("network"), "network", 32),
        protocol=read_uint(fields.get("protocol"), "protocol"),
        protocol_oldest=read_uint(fields.get("protocol_oldest"), "protocol_oldest"),
        release=read_text(fields.get("release"), "release", RELEASE_BYTES_MAX),
        parameters=read_bytes(fields.get("parameters"), "parameters", 32),
        incarnation=read_bytes(fields.get("incarnation"), "incarnation", INCARNATION_BYTES),
        height=read_uint(fields.get("height"), "height"),
        addresses=tuple(check_address(item) for item in addresses),
        time_ms=read_uint(fields.get("time"), "time", TIME_MS_MAX),
        last_index=_optional(fields, "last_index"),
        term=_optional(fields, "term"),
        promises=read_promises(fields.get("promises"), "the promises"),
        epoch=_optional(fields, "epoch"),
    )
    if hello.protocol_oldest > hello.protocol:
        raise DecodeError("protocol_oldest is above protocol")
    if not hello.release.isprintable():
        raise DecodeError("release has characters that do not print")
    if len(signed.kid) != KEY_BYTES or not cose.is_valid(signed):
        raise DecodeError("the signature of hello is wrong", reason="signature")
    return signed.kid, hello


def judge(mine: Hello, theirs: Hello) -> str | None:
    """Return why this node does not talk to the other one, None when it does.

    The first that applies of `wrong-network`, `protocol-too-old`, `protocol-too-new` (theirs,
    seen from here), `other-parameters`, `older-epoch` and `newer-epoch` (theirs).
    """
    if theirs.network != mine.network:
        return WRONG_NETWORK
    if theirs.protocol < mine.protocol_oldest:
        return PROTOCOL_TOO_OLD
    if theirs.protocol_oldest > mine.protocol:
        return PROTOCOL_TOO_NEW
    if theirs.parameters != mine.parameters:
        return OTHER_PARAMETERS
    if mine.epoch is not None and theirs.epoch is not None and theirs.epoch != mine.epoch:
        return OLDER_EPOCH if theirs.epoch < mine.epoch else NEWER_EPOCH
    return None


@cache
def parameters_digest() -> bytes:
    """Return the digest of protocol/parameters.toml: a CBOR map of its keys to its integers.

    The release's own versions are left out: they are compared on their own.
    """
    values: dict[str, object] = {
        name.lower(): value
        for name, value in vars(limits).items()
        if name.isupper() and type(value) is int and not name.startswith("PROTOCOL_VERSION")
    }
    values.pop("rules_version", None)
    return digest(PARAMETERS_DOMAIN, cbor.encode(values))


def _optional(fields: Mapping[object, object], name: str) -> int | None:
    return read_uint(fields[name], name) if name in fields else None


def _check_size(data: bytes) -> None:
    if len(data) > HELLO_BYTES_MAX:
        raise DecodeError(f"the hello has {len(data)} bytes", reason="size")
