"""A network of containers that `testnet init --compose` made: what a trial can do to it."""

import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from p2pcity.cli.chaos import container_links, processes
from p2pcity.cli.chaos.ground import Ground, Prepared
from p2pcity.cli.chaos.plan import ONLY_ON_PROCESSES, Trial
from p2pcity.cli.key_files import read_key
from p2pcity.cli.testnet.containers import ContainerNetwork, ContainerNode, open_network
from p2pcity.cli.testnet.making import change_settings
from p2pcity.crypto.keys import PrivateKey
from p2pcity.errors import ConfigError

ORDERERS_MIN: Final = 3
_CUTS: Final = ("partition", "one-way", "flap")


class Containers:
    """The ground of containers."""

    nodes_are = "containers"
    remedy = "Name no network: processes are made then, which everything can strike"

    def __init__(self, network: ContainerNetwork) -> None:
        """Take the network as it is, down or up; ConfigError when it is too small."""
        self._network = network
        roles = [node.role for node in network.nodes]
        self.size: tuple[int, int] | None = (roles.count("orderer"), roles.count("observer"))
        if roles.count("orderer") < ORDERERS_MIN:
            raise ConfigError(
                f"{network.directory} has fewer than {ORDERERS_MIN} orderers",
                remedy=how_to_make(ORDERERS_MIN, 0),
            )
        self._no_cuts = container_links.why_not()
        self.cuts = "none" if self._no_cuts else "packets"
        self.about = f"containers of {network.directory}; " + (
            f"none can be cut off: {self._no_cuts}" if self._no_cuts else "cuts lose packets"
        )

    def why_not(self, name: str) -> str:
        """Why a fault can't strike these containers; empty when it can."""
        if name in ONLY_ON_PROCESSES:
            return f"{name} takes {ONLY_ON_PROCESSES[name]}"
        if name in _CUTS and self._no_cuts:
            return f"{name} can't cut containers off: {self._no_cuts}"
        if name == "slow-disk":
            if os.geteuid() != 0:
                return "slow-disk traces processes in containers, which needs root"
            return processes.why_no_strace()
        return ""

    def prepare(self, trial: Trial, home: Path, stack: ExitStack) -> Prepared:
        """Write the trial's settings into the configurations, and take the network up for it."""
        if self.size != (trial.orderers, trial.observers):
            have = "{} orderers and {} observers".format(*(self.size or ()))
            raise ConfigError(
                f"{self._network.directory} has {have}, the trial wants {trial.orderers} and "
                f"{trial.observers}",
                remedy=how_to_make(trial.orderers, trial.observers),
            )
        network = self._with_settings(trial)
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        for node in network.nodes:
            assert isinstance(node, ContainerNode)
            node.log_since_s = time.time()
        stack.enter_context(network)
        links = container_links.ContainerLinks([n.name for n in network.nodes], network.engine)
        return Prepared(network, links, (), _author(network))

    def _with_settings(self, trial: Trial) -> ContainerNetwork:
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
        return ContainerNetwork(network.directory)


def how_to_make(orderers: int, observers: int) -> str:
    """Return the command that makes a network of containers of this size."""
    numbers = f"-n {orderers + observers} --orderers {orderers}"
    return f"Make another: p2pcity testnet init {numbers} --compose -o DIR"


def open_ground(directory: Path | None) -> Ground:
    """Return the ground of the network of containers in a directory; of processes without one.

    Raises ConfigError for a network of processes: their bytes must pass through relays, so a trial
    makes its own.
    """
    if directory is None:
        return processes.Processes()
    network = open_network(directory)
    if not isinstance(network, ContainerNetwork):
        raise ConfigError(
            f"{directory} is a network of processes, which has no relays for faults between nodes",
            remedy="Name no network: one of processes is made for the run.",
        )
    return Containers(network)


def _author(network: ContainerNetwork) -> PrivateKey:
    """The key that clients sign with: of a node, since every network has that."""
    for node in network.nodes:
        if node.config.node.author_key is not None:
            return read_key(node.config.node.author_key, "node.author_key")
    raise ConfigError(
        f"no node of {network.directory} has an author key for clients to sign with",
        remedy="Set node.author_key in the p2pcity.toml of one.",
    )
