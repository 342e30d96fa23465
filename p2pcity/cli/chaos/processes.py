"""A network of processes, made for one trial, whose bytes pass through relays."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from p2pcity.cli.chaos import cables, relayed_network, shifted_clock
from p2pcity.cli.chaos.ground import Prepared
from p2pcity.cli.chaos.nemeses import DISK_FREE_BYTES_MIN, clock_file
from p2pcity.cli.chaos.plan import Trial
from p2pcity.cli.chaos.wires import Wires
from p2pcity.cli.testnet.local_network import LocalNetwork

DISK_BYTES: Final = 1024 * 1024 * 1024


class Processes:
    """The ground of processes: everything can strike here that the machine allows."""

    nodes_are = "processes"
    remedy = "Provide what is missing"
    size: tuple[int, int] | None = None

    def __init__(self) -> None:
        """See what this machine allows."""
        reason = cables.why_not()
        self.cuts = "bytes" if reason else "packets"
        self.about = "cuts " + (
            f"hold bytes; to lose packets {reason}" if reason else "lose packets"
        )

    def why_not(self, name: str) -> str:
        """Why a fault can't strike on this machine; empty when it can."""
        if name == "slow-disk":
            return why_no_strace()
        if name == "disk-full" and os.geteuid() != 0:
            return "disk-full mounts small disks, which needs root"
        return ""

    def prepare(self, trial: Trial, home: Path, stack: ExitStack) -> Prepared:
        """Make the network in `home`, with relays, and with what its faults need."""
        lines = None
        if self.cuts == "packets":
            stack.enter_context(cables.own_namespace())
            lines = cables.Cables(trial.nodes)
            lines.lay()
        wires = stack.enter_context(Wires(trial.nodes, trial.seed, cables=lines))
        settings = dict(trial.settings)
        if "disk-full" in trial.names:
            settings["ledger.disk_free_bytes_min"] = DISK_FREE_BYTES_MIN
        network = relayed_network.make(
            home,
            wires,
            observers=trial.observers,
            spares=trial.spares,
            settings=settings,
            own_settings=trial.own_settings,
        )
        _equip(network, trial.names, stack)
        first = len(trial.nodes) - trial.spares
        spares, network.nodes = network.nodes[first:], network.nodes[:first]
        stack.enter_context(network)
        return Prepared(network, wires, spares, network.author_key(relayed_network.AUTHOR))


def why_no_strace() -> str:
    """Why slow-disk can't strike on this machine; empty when it can."""
    if shutil.which("strace") is None:
        return "slow-disk needs strace, which is not installed"
    # Attaching to a process that is no child must be allowed (yama's ptrace_scope, seccomp).
    child = subprocess.Popen(["sleep", "5"])
    try:
        tried = subprocess.run(
            ["timeout", "-s", "INT", "1", "strace", "-qq", "-p", str(child.pid)],
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        child.kill()
        child.wait()
    if "attach" in tried.stderr:
        return f"slow-disk may not trace another process here ({tried.stderr.strip()})"
    return ""


def _equip(network: LocalNetwork, names: Sequence[str], stack: ExitStack) -> None:
    """Give the nodes what the nemeses need: small disks, clocks that can be set.

    The disks go with the stack.
    """
    for node in network.nodes:
        if "clock" in names:
            shifted_clock.make_file(clock_file(node))
            module = shifted_clock.__name__
            node.program = (node.program[0], "-m", module, str(clock_file(node)))
        if "disk-full" in names:
            _mount(node.config.node.data_dir, stack)


def _mount(data: Path, stack: ExitStack) -> None:
    """Put a small disk under a data directory, with what is in it."""
    before = data.with_name("data.before")
    data.rename(before)
    data.mkdir(mode=0o700)
    options = f"size={DISK_BYTES},mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "p2pcity", str(data)], check=True)
    stack.callback(_unmount, data)
    for part in before.iterdir():
        shutil.move(part, data / part.name)
    before.rmdir()


def _unmount(data: Path) -> None:
    """Take the small disk away; what was on it stays."""
    after = data.with_name("data.after")
    shutil.copytree(data, after)
    subprocess.run(["umount", "-l", str(data)], check=True)
    data.rmdir()
    after.rename(data)
