"""A network that `testnet init` made: what a trial can do to it, without having made it."""

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from p2pcity.cli.chaos import container_links, processes
from p2pcity.cli.chaos.ground import Ground, Prepared
from p2pcity.cli.chaos.links import Links, Wire
from p2pcity.cli.chaos.plan import CUTS, ONLY_ON_ITS_OWN, Trial
from p2pcity.cli.key_files import read_key
from p2pcity.cli.testnet.containers import ContainerNetwork, ContainerNode, open_network
from p2pcity.cli.testnet.local_network import LocalNetwork
from p2pcity.cli.testnet.making import change_settings
from p2pcity.crypto.keys import PrivateKey
from p2pcity.errors import ConfigError

ORDERERS_MIN: Final = 3


class Existing(ABC):
    """The ground of a network that is there, down or up."""

    nodes_are: str
    cuts: str
    about: str
    remedy = "Name no network: one of processes is made then, which everything can strike"
    option = ""
    """What `testnet init` needs to make another of its kind."""

    def __init__(self, network: LocalNetwork) -> None:
        """Take the network as it is; ConfigError when it is too small."""
        self._network = network
        roles = [node.role for node in network.nodes]
        self.size: tuple[int, int] | None = (roles.count("orderer"), roles.count("observer"))
        if roles.count("orderer") < ORDERERS_MIN:
            raise ConfigError(
                f"{network.directory} has fewer than {ORDERERS_MIN} orderers",
                remedy=self.how_to_make(ORDERERS_MIN, 0),
            )

    def how_to_make(self, orderers: int, observers: int) -> str:
        """Return the command that makes a network of this kind and size."""
        numbers = f"-n {orderers + observers} --orderers {orderers}"
        return f"Make another: p2pcity testnet init {numbers}{self.option} -o DIR"

    def why_not(self, name: str) -> str:
        """Why a fault can't strike these nodes; empty when it can."""
        if name in ONLY_ON_ITS_OWN:
            return f"{name} takes {ONLY_ON_ITS_OWN[name]}, which a network that is there has not"
        if name in CUTS:
            return self._why_no_cuts(name)
        return processes.why_no_strace() if name == "slow-disk" else ""

    @abstractmethod
    def _why_no_cuts(self, name: str) -> str:
        """Why nodes can't be cut off from each other; empty when they can."""

    @abstractmethod
    def _links(self, network: LocalNetwork) -> Links:
        """The links between the nodes; called once for a trial."""

    def prepare(self, trial: Trial, home: Path, stack: ExitStack) -> Prepared:
        """Write the trial's settings into the configurations, and take the network up for it."""
        if self.size != (trial.orderers, trial.observers):
            have = "{} orderers and {} observers".format(*(self.size or ()))
            raise ConfigError(
                f"{self._network.directory} has {have}, the trial wants {trial.orderers} and "
                f"{trial.observers}",
                remedy=self.how_to_make(trial.orderers, trial.observers),
            )
        network = self._with_settings(trial)
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        for node in network.nodes:
            if isinstance(node, ContainerNode):
                node.log_since_s = time.time()
            elif node.log_file.exists():
                node.log_from = node.log_file.stat().st_size
        stack.enter_context(network)
        return Prepared(network, self._links(network), (), _author(network))

    def _with_settings(self, trial: Trial) -> LocalNetwork:
        """The network with the trial's settings in its configurations, if it has any."""
        network = self._network
        if not (trial.settings or trial.own_settings):
            return network
        if network.running():
            raise ConfigError(
                f"{network.directory} runs, and nodes read settings when they start",
                remedy=f"Stop it first: p2pcity testnet down {network.directory}",
            )
        for node in network.nodes:
            changes = {**trial.settings, **trial.own_settings.get(node.name, {})}
            if changes:
                change_settings(node.config_file, changes)
        return type(network)(network.directory)


class Containers(Existing):
    """The ground of containers, which the kernel can cut off from each other."""

    nodes_are = "containers"
    option = " --compose"

    def __init__(self, network: ContainerNetwork) -> None:
        """Take the network as it is; ConfigError when it is too small."""
        super().__init__(network)
        self._engine = network.engine
        self._no_cuts = container_links.why_not()
        self.cuts = "none" if self._no_cuts else "packets"
        self.about = f"containers of {network.directory}; " + (
            f"none can be cut off: {self._no_cuts}" if self._no_cuts else "cuts lose packets"
        )

    def why_not(self, name: str) -> str:
        """Why a fault can't strike these containers; empty when it can."""
        if name == "slow-disk" and os.geteuid() != 0:
            return "slow-disk traces processes in containers, which needs root"
        return super().why_not(name)

    def _why_no_cuts(self, name: str) -> str:
        return f"{name} can't cut containers off: {self._no_cuts}" if self._no_cuts else ""

    def _links(self, network: LocalNetwork) -> Links:
        return container_links.ContainerLinks([n.name for n in network.nodes], self._engine)


class GivenProcesses(Existing):
    """The ground of processes that share one address, so that nothing is between two of them."""

    nodes_are = "processes"
    cuts = "none"

    def __init__(self, network: LocalNetwork) -> None:
        """Take the network as it is; ConfigError when it is too small."""
        super().__init__(network)
        self.about = f"processes of {network.directory}, none of which can be cut off"

    def _why_no_cuts(self, name: str) -> str:
        return f"{name} takes relays between the nodes, which a network that is there has not"

    def _links(self, network: LocalNetwork) -> Links:
        return _Whole(node.name for node in network.nodes)


class _Whole(Links):
    """Links to which nothing can be done."""

    def hold(self, wires: Iterable[Wire]) -> None:
        raise AssertionError("what cuts is refused by name")

    def release(self, wires: Iterable[Wire]) -> None:
        """Nothing is held."""

    def held(self, wires: Iterable[Wire]) -> int:
        return 0

    def mend(self, wires: Iterable[Wire] | None = None) -> None:
        """Nothing is broken."""

    def renew(self, node: str) -> None:
        """A node listens where it did."""


def open_ground(directory: Path | None) -> Ground:
    """Return the ground of the network in a directory; of processes of its own without one.

    Raises ConfigError.
    """
    if directory is None:
        return processes.Processes()
    network = open_network(directory)
    if isinstance(network, ContainerNetwork):
        return Containers(network)
    return GivenProcesses(network)


def _author(network: LocalNetwork) -> PrivateKey:
    """The key that clients sign with: of a node, since every network has that."""
    for node in network.nodes:
        if node.config.node.author_key is not None:
            return read_key(node.config.node.author_key, "node.author_key")
    raise ConfigError(
        f"no node of {network.directory} has an author key for clients to sign with",
        remedy="Set node.author_key in the p2pcity.toml of one.",
    )
