"""Cuts in the kernel: packets between a node and the relays vanish, and nobody is told.

Each node knows every other by an address that this pair alone uses, so that one direction of
one wire is what goes to one address and what comes from another. The rules stand in a network
namespace of the run's own; that takes root, ip(8) and nft(8).
"""

import contextlib
import ctypes
import json
import os
import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Final

from p2pcity.cli.chaos.links import Wire
from p2pcity.errors import Unavailable

_NEWNET: Final = 0x40000000
"""CLONE_NEWNET of unshare(2) and setns(2); Python has them from 3.12 on."""
TABLE: Final = "inet p2pcity_chaos"
"""The table of all rules of a run."""
# Dropped where they arrive: whoever sent them is not told, as with a cable.
_RULES: Final = f"""\
table {TABLE} {{
    set to {{ type ipv4_addr; counter; }}
    set from {{ type ipv4_addr; counter; }}
    chain arriving {{
        type filter hook input priority 0; policy accept;
        ip daddr @to drop
        ip saddr @from drop
    }}
}}
"""


@contextlib.contextmanager
def own_namespace() -> Iterator[None]:
    """Give this thread, and all that it starts, a network of its own: loopback and nothing else.

    Raises OSError where that is not allowed, Unavailable where ip(8) does not bring it up.
    """
    library = ctypes.CDLL(None, use_errno=True)

    def call(name: str, *arguments: int) -> None:
        if getattr(library, name)(*arguments):
            number = ctypes.get_errno()
            raise OSError(number, f"{name}: {os.strerror(number)}")

    with open("/proc/thread-self/ns/net", "rb") as before:
        call("unshare", _NEWNET)
        try:
            _run("ip", "link", "set", "lo", "up")
            yield
        finally:
            call("setns", before.fileno(), _NEWNET)


def why_not() -> str:
    """Why packets can't be dropped on this machine; empty when they can."""
    if os.geteuid() != 0:
        return "it takes root"
    for program in ("ip", "nft"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    try:
        with own_namespace():
            Cables(()).lay()
    except (OSError, Unavailable) as error:
        return str(error)
    return ""


class Cables:
    """Which directions between which nodes are cut; may be used from any thread."""

    def __init__(self, nodes: Iterable[str]) -> None:
        self._numbers = {name: number for number, name in enumerate(nodes, 1)}
        self._cut: frozenset[Wire] = frozenset()
        self._dropped: Counter[Wire] = Counter()
        self._lock = threading.Lock()

    def lay(self) -> None:
        """Make the rules in the namespace of this thread; Unavailable."""
        nft(_RULES)

    def face(self, node: str, other: str) -> str:
        """The address by which `node` knows `other`, and from which `other` comes to it."""
        return f"127.1.{self._numbers[node]}.{self._numbers[other]}"

    def cut(self, wires: Collection[Wire]) -> None:
        """Let these wires be cut, and no others; Unavailable."""
        with self._lock:
            now = frozenset(wires)
            gone, new = self._cut - now, now - self._cut
            if gone:
                self._dropped.update(self._counted(gone))
            nft(self._elements("delete", gone) + self._elements("add", new))
            self._cut = now

    def dropped_bytes(self, wires: Iterable[Wire]) -> int:
        """How many bytes of these wires' packets were dropped so far; Unavailable."""
        with self._lock:
            now = self._counted(self._cut)
            return sum(self._dropped[wire] + now[wire] for wire in set(wires))

    def _elements(self, verb: str, wires: Collection[Wire]) -> str:
        lines = ""
        for name in ("to", "from") if wires else ():
            faces = ", ".join(sorted(self._face_of(name, wire) for wire in wires))
            lines += f"{verb} element {TABLE} {name} {{ {faces} }}\n"
        return lines

    def _face_of(self, name: str, wire: Wire) -> str:
        """What the one says goes to its face of the other; to the other it comes from a face."""
        one, other = wire
        return self.face(one, other) if name == "to" else self.face(other, one)

    def _counted(self, wires: Iterable[Wire]) -> Counter[Wire]:
        """The bytes that were dropped of wires that are cut, since they were."""
        chosen = tuple(wires)
        found: Counter[Wire] = Counter()
        for name in ("to", "from") if chosen else ():
            counts = counters(name)
            for wire in chosen:
                found[wire] += counts[self._face_of(name, wire)]
        return found


def counters(name: str, into: Sequence[str] = ()) -> Counter[str]:
    """Return the bytes that each address of a set has counted; Unavailable.

    `into` is what enters another namespace, as nsenter(1) does; without, it is this thread's.
    """
    document = json.loads(_run(*into, "nft", "--json", "list", "set", *TABLE.split(), name))
    found: Counter[str] = Counter()
    items: list[dict[str, Any]] = document["nftables"]
    for item in items:
        for element in item.get("set", {}).get("elem", ()):
            found[element["elem"]["val"]] = element["elem"]["counter"]["bytes"]
    return found


def nft(commands: str, into: Sequence[str] = ()) -> None:
    """Let nft do all of these commands, or none of them; Unavailable."""
    if commands:
        _run(*into, "nft", "-f", "-", given=commands)


def _run(*command: str, given: str = "") -> str:
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().partition("\n")[0]
        raise Unavailable(f"{' '.join(command)}: {said}")
    return done.stdout
