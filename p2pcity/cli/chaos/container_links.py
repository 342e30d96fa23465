"""Cuts between containers: what comes from somebody who is cut off is dropped as it arrives.

The rules stand in the network namespace of each container, which root enters from outside, with
nsenter(1) and nft(8). A container that is started again has a new one, and perhaps another
address: its rules are laid again, and so are those that the others have against it.
"""

import contextlib
import shutil
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from p2pcity.cli.chaos import cables
from p2pcity.cli.chaos.links import Links, Wire
from p2pcity.cli.testnet.containers import Container, Engine
from p2pcity.errors import Unavailable

_RULES: Final = f"""\
table {cables.TABLE} {{
    set from {{ type ipv4_addr; counter; }}
    chain arriving {{
        type filter hook input priority 0; policy accept;
        ip saddr @from drop
    }}
}}
"""


def why_not() -> str:
    """Why containers can't be cut off on this machine; empty when they can."""
    if shutil.which("nsenter") is None:
        return "nsenter is not installed"
    return cables.why_not()


def due(holds: Mapping[Wire, int], faces: Mapping[str, Collection[str]]) -> dict[str, set[str]]:
    """Return from which addresses each node that runs may hear nothing.

    `holds` is how often each wire is held, `faces` the addresses of the nodes that run.
    """
    found: dict[str, set[str]] = {name: set() for name in faces}
    for (one, other), count in holds.items():
        if count > 0 and other in found:
            found[other].update(faces.get(one, ()))
    return found


@dataclass(frozen=True, slots=True)
class _Laid:
    """What was laid in a container's namespace: from which address comes which wire."""

    container: Container
    wires: Mapping[str, Wire]


class ContainerLinks(Links):
    """The links of a network of containers that one engine runs."""

    def __init__(self, nodes: Iterable[str], engine: Engine) -> None:
        """Nothing is cut yet."""
        super().__init__(nodes)
        self._engine = engine
        self._holds: Counter[Wire] = Counter()
        self._dropped: Counter[Wire] = Counter()
        self._laid: dict[str, _Laid] = {}
        self._lock = threading.Lock()

    def hold(self, wires: Iterable[Wire]) -> None:
        """Lose all packets of these wires from now on; Unavailable."""
        with self._lock:
            self._holds.update(wires)
            self._lay()

    def release(self, wires: Iterable[Wire]) -> None:
        """End one `hold` of these wires; Unavailable."""
        with self._lock:
            for wire in wires:
                self._holds[wire] = max(0, self._holds[wire] - 1)
            self._lay()

    def held(self, wires: Iterable[Wire]) -> int:
        """How many bytes of these wires' packets were dropped so far; Unavailable."""
        with self._lock:
            now = self._dropped + sum(map(self._counted, self._laid.values()), Counter[Wire]())
            return sum(now[wire] for wire in set(wires))

    def mend(self, wires: Iterable[Wire] | None = None) -> None:
        """Let everything through these wires (or through all) again; Unavailable."""
        with self._lock:
            for wire in self.all if wires is None else tuple(wires):
                del self._holds[wire]
            self._lay()

    def renew(self, node: str) -> None:
        """Lay the rules of a container that was started again, and against it; Unavailable."""
        with self._lock:
            if any(self._holds.values()):
                self._lay()

    def _lay(self) -> None:
        """Let the rules of all containers that run be what they should be."""
        found = self._engine.containers()
        running = {name: found[name] for name in self.nodes if name in found and found[name].pid}
        owners = {address: name for name, it in running.items() for address in it.addresses}
        wanted = due(self._holds, {name: it.addresses for name, it in running.items()})
        for name, addresses in wanted.items():
            new = _Laid(running[name], {address: (owners[address], name) for address in addresses})
            old = self._laid.get(name)
            if old is not None and old.container.pid != new.container.pid:
                # It was started again, and its namespace is new.
                old = None
            if new.wires == (old.wires if old else {}):
                continue
            if old is not None:
                self._dropped += self._counted(old)
            rules = _RULES if old is None else f"flush set {cables.TABLE} from\n"
            if addresses:
                rules += f"add element {cables.TABLE} from {{ {', '.join(sorted(addresses))} }}\n"
            if _is_here(new.container):
                with _while_here(new.container):
                    cables.nft(rules, _into(new.container))
                    self._laid[name] = new

    def _counted(self, laid: _Laid) -> Counter[Wire]:
        """The bytes that were dropped in a namespace since its rules were laid, while it is."""
        found: Counter[Wire] = Counter()
        if laid.wires and _is_here(laid.container):
            with _while_here(laid.container):
                counts = cables.counters("from", _into(laid.container))
                found.update({wire: counts[address] for address, wire in laid.wires.items()})
        return found


def _into(container: Container) -> tuple[str, ...]:
    return ("nsenter", "-t", str(container.pid), "-n")


def _is_here(container: Container) -> bool:
    """Whether a container's process runs on this machine: its control group bears its id.

    The pid of one that has ended, or of another machine's, may be anybody's here.
    """
    process = Path(f"/proc/{container.pid}")
    try:
        is_its = container.id in (process / "cgroup").read_text(encoding="utf-8")
    except OSError:
        return False
    # What has ended and waits for its parent has no network any more.
    return is_its and (process / "ns" / "net").exists()


@contextlib.contextmanager
def _while_here(container: Container) -> Iterator[None]:
    """Let what is done in a container's network fail when the container ends meanwhile.

    Its rules and counts are gone then; they are laid anew when it is started again.
    """
    try:
        yield
    except Unavailable:
        if _is_here(container):
            raise
