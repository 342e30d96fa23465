"""Where a trial runs: on processes that it makes itself, or on containers that there are."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from p2pcity.cli.chaos.links import Links
from p2pcity.cli.chaos.plan import Trial
from p2pcity.cli.testnet.local_network import LocalNetwork
from p2pcity.cli.testnet.local_node import LocalNode
from p2pcity.crypto.keys import PrivateKey


@dataclass(frozen=True, slots=True)
class Prepared:
    """A network that a trial can start: its links, nodes to add to it, and who signs."""

    network: LocalNetwork
    links: Links
    spares: tuple[LocalNode, ...]
    author: PrivateKey


class Ground(Protocol):
    """What a trial asks of where it runs."""

    nodes_are: str
    """`processes` or `containers`."""
    cuts: str
    """What a cut does: it loses `packets`, it holds `bytes`, or there are `none`."""
    about: str
    """A sentence on it for people."""
    remedy: str
    """What to do when a fault can't strike here."""
    size: tuple[int, int] | None
    """How many orderers and observers there are; None: as many as the trial wants."""

    def why_not(self, name: str) -> str:
        """Why a fault can't strike here; empty when it can."""

    def prepare(self, trial: Trial, home: Path, stack: ExitStack) -> Prepared:
        """Get everything ready for a trial, whose files go into `home`; nothing is started.

        What must be undone goes onto the stack, down to the end of the nodes. Raises ConfigError.
        """
