"""A second reader of the protocol's bytes: CBOR, COSE_Sign1, the tree, signatures, peer ids.

Written from protocol/00-conventions.md alone, and importing nothing of p2pcity: tests/
test_independent.py judges the vectors with it.
"""

import hashlib
import math
import struct
from typing import Any

import cbor2
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey


class Bad(Exception):
    """Refused; the text is the reason."""


def need(is_so: bool, reason: str = "malformed") -> None:
    if not is_so:
        raise Bad(reason)


# -- 00, deterministic CBOR ----------------------------------------------------------------------


def decode(data: bytes) -> Any:
    value, end = item(data, 0, 0)
    need(end == len(data))
    return value


def head(data: bytes, at: int) -> tuple[int, int, int]:
    need(at < len(data))
    major, info = data[at] >> 5, data[at] & 31
    if info < 24:
        return major, info, at + 1
    need(info < 28)
    width = 1 << (info - 24)
    end = at + 1 + width
    need(end <= len(data))
    argument = int.from_bytes(data[at + 1 : end], "big")
    if major < 7:
        need(argument >= (24 if width == 1 else 1 << (4 * width)))
    return major, argument, end


def item(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    start = at
    major, argument, at = head(data, at)
    if major < 2:
        return (-1 - argument if major else argument), at
    if major < 4:
        need(argument <= len(data) - at)
        content = data[at : at + argument]
        try:
            return (content if major == 2 else content.decode()), at + argument
        except UnicodeDecodeError:
            raise Bad("malformed") from None
    if major == 7:
        return simple(data[start:at]), at
    need(major != 6 and depth < 16 and argument * (major - 3) <= len(data) - at)
    found: Any = [] if major == 4 else {}
    before = b""
    for _ in range(argument):
        if major == 4:
            value, at = item(data, at, depth + 1)
            found.append(value)
            continue
        start = at
        need(at < len(data) and data[at] >> 5 in (0, 1, 3))
        key, at = item(data, at, depth + 1)
        need(data[start:at] > before)
        before = data[start:at]
        found[key], at = item(data, at, depth + 1)
    return found, at


def simple(data: bytes) -> Any:
    if len(data) == 1:
        need(data in (b"\xf4", b"\xf5", b"\xf6"))
        return {0xF4: False, 0xF5: True, 0xF6: None}[data[0]]
    need(data[0] != 0xF8)
    value = struct.unpack({3: ">e", 5: ">f", 9: ">d"}[len(data)], data[1:])[0]
    need(math.isfinite(value) and not (value == int(value) and -(2**64) <= value < 2**64))
    for form in {5: ("e",), 9: ("e", "f")}.get(len(data), ()):
        try:
            need(struct.unpack(f">{form}", struct.pack(f">{form}", value))[0] != value)
        except OverflowError:
            continue
    return value


def encode(value: Any) -> bytes:
    """What cbor2 sorts by length first is sorted by bytes too, as long as keys are short texts."""
    return cbor2.dumps(value, canonical=True)


def fields(value: Any, *names: str, optional: tuple[str, ...] = (), open_: bool = False) -> Any:
    need(isinstance(value, dict) and set(names) <= value.keys())
    need(open_ or value.keys() <= {*names, *optional})
    return value


def binary(value: Any, size: int | None = None) -> bytes:
    need(type(value) is bytes and size in (None, len(value)))
    return bytes(value)


def number(value: Any, least: int = 0, most: int = 2**64 - 1) -> int:
    need(type(value) is int and least <= value <= most)
    return int(value)


def text(value: Any, most: int, least: int = 1) -> str:
    need(type(value) is str and least <= len(value.encode()) <= most)
    return str(value)


def items(value: Any, most: int | None = None) -> list[Any]:
    need(type(value) is list and (most is None or len(value) <= most))
    return list(value)


# -- 00, digests, tree, signatures, COSE_Sign1, peer ids -----------------------------------------


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def digest(domain: str, data: bytes) -> bytes:
    return sha256(bytes([len(domain)]) + domain.encode("ascii") + data)


def leaf_hash(data: bytes) -> bytes:
    return sha256(b"\x00" + data)


def tree_root(leaves: list[bytes]) -> bytes:
    if len(leaves) < 2:
        return leaves[0] if leaves else sha256(b"")
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\x01" + tree_root(leaves[:split]) + tree_root(leaves[split:]))


def includes(leaf: bytes, index: int, size: int, proof: list[bytes], root: bytes) -> bool:
    """RFC 9162 section 2.1.3.2."""
    if not 0 <= index < size or any(len(x) != 32 for x in (leaf, root, *proof)):
        return False
    fn, sn, r = index, size - 1, leaf
    for node in proof:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            r = sha256(b"\x01" + node + r)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = sha256(b"\x01" + r + node)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and r == root


def extends(first: int, root1: bytes, second: int, root2: bytes, proof: list[bytes]) -> bool:
    """RFC 9162 section 2.1.4.2."""
    if not 0 <= first <= second or any(len(x) != 32 for x in (root1, root2, *proof)):
        return False
    if first == second:
        return root1 == root2 and not proof and (first > 0 or root1 == sha256(b""))
    if first == 0 or not proof:
        return False
    path = proof if first & (first - 1) else [root1, *proof]
    fn, sn = first - 1, second - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = path[0]
    for node in path[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            fr, sr = sha256(b"\x01" + node + fr), sha256(b"\x01" + node + sr)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = sha256(b"\x01" + sr + node)
        fn, sn = fn >> 1, sn >> 1
    return fr == root1 and sr == root2 and sn == 0


def is_signed(public: bytes, message: bytes, signature: bytes) -> bool:
    if len(public) != 32 or len(signature) != 64:
        return False
    try:
        VerifyKey(public).verify(message, signature)
    except BadSignatureError:
        return False
    return True


class Signed:
    """A COSE_Sign1, taken apart; `is_valid` is asked for where the prose says so."""

    def __init__(self, data: bytes, content_type: str) -> None:
        need(data[:1] == b"\xd2")
        parts = items(decode(data[1:]))
        need(len(parts) == 4 and parts[1] == {} and type(parts[1]) is dict)
        self.protected, self.payload = binary(parts[0]), binary(parts[2])
        self.signature = binary(parts[3], 64)
        header = decode(self.protected)
        need(isinstance(header, dict) and list(header) == [1, 3, 4])
        need(header[1] == -8 and header[3] == content_type)
        self.kid = binary(header[4], 32)
        self.to_be_signed = encode(["Signature1", self.protected, b"", self.payload])

    @property
    def is_valid(self) -> bool:
        return is_signed(self.kid, self.to_be_signed, self.signature)


def peer_key(peer_id: str) -> bytes:
    alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    need(peer_id.startswith("12D3Koo") and set(peer_id) <= set(alphabet))
    value = 0
    for character in peer_id:
        value = value * 58 + alphabet.index(character)
    # The first byte is zero, and a zero byte in front is one "1".
    data = b"\x00" + value.to_bytes((value.bit_length() + 7) // 8, "big")
    need(len(data) == 38 and data[:6] == bytes.fromhex("002408011220"))
    return data[6:]
