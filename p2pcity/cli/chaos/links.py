"""The links between nodes, as nemeses see them: relays carry it out, or the containers' kernel."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from itertools import permutations

Wire = tuple[str, str]
"""What the first node says to the second, whoever dialled."""


class Links(ABC):
    """All links of a network; the methods may be called from any thread."""

    def __init__(self, nodes: Iterable[str]) -> None:
        """Take the names of the nodes."""
        self.nodes = tuple(nodes)
        self.all: tuple[Wire, ...] = tuple(permutations(self.nodes, 2))

    def around(self, nodes: Iterable[str]) -> list[Wire]:
        """All wires, both ways, between these nodes and the rest."""
        inside = set(nodes)
        return [wire for wire in self.all if (wire[0] in inside) != (wire[1] in inside)]

    def into(self, node: str) -> list[Wire]:
        """The wires that bring something to a node."""
        return [wire for wire in self.all if wire[1] == node]

    def out_of(self, node: str) -> list[Wire]:
        """The wires that take something from a node."""
        return [wire for wire in self.all if wire[0] == node]

    @abstractmethod
    def hold(self, wires: Iterable[Wire]) -> None:
        """Let nothing through these wires from now on."""

    @abstractmethod
    def release(self, wires: Iterable[Wire]) -> None:
        """End one `hold` of these wires."""

    @abstractmethod
    def held(self, wires: Iterable[Wire]) -> int:
        """How many bytes of these wires were held or lost so far."""

    @abstractmethod
    def mend(self, wires: Iterable[Wire] | None = None) -> None:
        """End all that was done to these wires (or to all)."""

    @abstractmethod
    def renew(self, node: str) -> None:
        """Let a node that was started again find its links as the others have them."""
