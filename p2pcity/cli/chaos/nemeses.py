"""The faults themselves, on real nodes, and how each knows that it really struck.

A nemesis is a generator: up to its `yield` the fault begins, after it the fault ends, and it
returns how often it struck by what was seen (a process that was killed, bytes that were held, a
sync that was late). 0 means that it met nothing: that does not count.
"""

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM
from typing import Any, Final

from p2pcity.api.client import ApiProblem, Unreachable
from p2pcity.cli.chaos import members, shifted_clock
from p2pcity.cli.chaos.links import Links, Wire
from p2pcity.cli.chaos.plan import Strike
from p2pcity.cli.chaos.site import ASK_S, Acting, Site, get, wait
from p2pcity.cli.chaos.wires import Wires
from p2pcity.cli.testnet.local_node import LocalNode
from p2pcity.errors import SyncFailedError

DISK_FREE_BYTES_MIN: Final = 8 * 1024 * 1024
"""What `ledger.disk_free_bytes_min` must be on the small disks of disk-full."""
TOGETHER: Final = ("kill", "partition", "delay")
"""These strike several nodes as one group; the others strike each by itself."""
_GONE_S: Final = 10.0
_SEEN_S: Final = 5.0
_CLOCK_OFFSETS_S: Final = (-600, -60, -7, -2, 2, 7, 60, 600)


# -- processes ---------------------------------------------------------------------------------


def kill(site: Site, strike: Strike) -> Acting:
    """SIGKILL: mostly of one node, sometimes of more, seldom of all at once."""
    first = site.victim(strike)
    if first is None:
        return 0
    total = len(site.network.nodes)
    size = 1 if strike.chance < 0.7 else (total - 1) // 2 if strike.chance < 0.85 else total
    names = site.group(strike, first, max(1, size))
    struck = 0
    with site.keeping(names):
        nodes = [site.network.node(name) for name in names]
        nodes = [node for node in nodes if node.send(SIGKILL)]
        for node in nodes:
            site.explain(node.name, -SIGKILL)
        for node in nodes:
            node.wait_gone(time.monotonic() + _GONE_S)
            struck += node.exit_code == -SIGKILL
        yield
        site.start_ended(names)
    return struck


def term(site: Site, strike: Strike) -> Acting:
    """SIGTERM: the node hands over and ends by itself."""
    name = site.victim(strike)
    if name is None:
        return 0
    with site.keeping([name]):
        node = site.network.node(name)
        # A process that has only just begun does not hear it, and ends by it.
        ends = 0 if knows(node, SIGTERM) else -SIGTERM
        struck = node.send(SIGTERM)
        if struck:
            site.explain(name, 0)
            site.explain(name, ends)
        if not node.wait_gone(time.monotonic() + _GONE_S):
            site.findings.append(f"{name} did not end within {_GONE_S:.0f} s of SIGTERM")
            if node.send(SIGKILL):
                site.explain(name, -SIGKILL)
            node.wait_gone(time.monotonic() + _GONE_S)
        yield
        site.start_ended([name])
    return int(struck)


def knows(node: LocalNode, number: int) -> bool:
    """Whether a node's process catches a signal (proc_pid_status(5): SigCgt)."""
    try:
        text = Path(f"/proc/{node.pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    caught = [line.split()[1] for line in text.splitlines() if line.startswith("SigCgt:")]
    return bool(caught) and bool(int(caught[0], 16) >> (number - 1) & 1)


def pause(site: Site, strike: Strike) -> Acting:
    """A node stands still for a while: it wakes and does not know that it slept."""
    name = site.victim(strike)
    if name is None:
        return 0
    with site.keeping([name]):
        node = site.network.node(name)
        struck = node.pause()
        try:
            yield
        finally:
            node.resume()
    return int(struck)


# -- the network -------------------------------------------------------------------------------


def _hold(wires: Links, chosen: Sequence[Wire]) -> Acting:
    before = wires.held(chosen)
    wires.hold(chosen)
    yield
    struck = wires.held(chosen) > before
    wires.release(chosen)
    return int(struck)


def partition(site: Site, strike: Strike) -> Acting:
    """A node or a minority cut off both ways; one time in seven everybody from everybody."""
    first = site.victim(strike, site.wires.nodes)
    if first is None:
        return 0
    total = len(site.network.nodes)
    is_everybody = len(strike.nodes) == total if strike.nodes else strike.chance > 0.86
    if is_everybody:
        chosen = list(site.wires.all)
    else:
        minority = (total - 1) // 2
        size = minority if strike.chance > 0.5 else 1
        chosen = site.wires.around(site.group(strike, first, max(1, size)))
    return (yield from _hold(site.wires, chosen))


def one_way(site: Site, strike: Strike) -> Acting:
    """A node that can say and not hear, or hear and not say."""
    name = site.victim(strike)
    if name is None:
        return 0
    wires = site.wires
    is_deaf = strike.way == "deaf" if strike.way else strike.chance < 0.5
    chosen = wires.into(name) if is_deaf else wires.out_of(name)
    return (yield from _hold(wires, chosen))


def flap(site: Site, strike: Strike) -> Acting:
    """A link between two nodes that comes and goes."""
    chosen = _pair(site, strike)
    if chosen is None:
        return 0
    one, other = chosen
    wires, link = site.wires, [(one, other), (other, one)]
    before, ended = wires.held(link), threading.Event()

    def turn() -> None:
        period_s = 0.1 + 0.4 * strike.chance
        while not ended.is_set():
            wires.hold(link)
            ended.wait(period_s)
            wires.release(link)
            ended.wait(period_s)

    thread = threading.Thread(target=turn, name="flap", daemon=True)
    thread.start()
    yield
    ended.set()
    thread.join(_SEEN_S)
    return int(wires.held(link) > before)


def delay(site: Site, strike: Strike) -> Acting:
    """Everything between all nodes comes late, in its order."""
    wires = _relays(site)
    before = sum(wires.late_bytes.values())
    wires.delay(wires.all, strike.by_s or 0.01 + 0.09 * strike.chance)
    yield
    wires.delay(wires.all, 0)
    return int(sum(wires.late_bytes.values()) > before)


def slow_link(site: Site, strike: Strike) -> Acting:
    """64 kbit/s to one node, from everybody together not more than from one."""
    name = site.victim(strike)
    if name is None:
        return 0
    wires = _relays(site)
    chosen = wires.into(name)
    before = sum(wires.late_bytes[wire] for wire in chosen)
    wires.slow(chosen, 8_000 / len(chosen))
    yield
    wires.slow(chosen, 0)
    return int(sum(wires.late_bytes[wire] for wire in chosen) > before)


def reset(site: Site, strike: Strike) -> Acting:
    """All connections between two nodes are reset, twice."""
    chosen = _pair(site, strike)
    if chosen is None:
        return 0
    wires = _relays(site)
    struck = wires.reset(*chosen)
    yield
    return struck + wires.reset(*chosen)


def half_open(site: Site, strike: Strike) -> Acting:
    """One end loses its connections, the other one hears nothing of it."""
    chosen = _pair(site, strike)
    if chosen is None:
        return 0
    struck = _relays(site).leave_half_open(*chosen)
    yield
    return struck


def _pair(site: Site, strike: Strike) -> tuple[str, str] | None:
    """A node and another one, such that they are connected when there are two such nodes."""
    one = site.victim(strike)
    if one is None:
        return None
    others = [name for name in site.wires.nodes if name != one]
    at = int(strike.chance * 983) % len(others)
    others = others[at:] + others[:at]
    wires = site.wires
    if isinstance(wires, Wires):
        connected = next((name for name in others if wires.connections(one, name)), others[0])
        return one, connected
    return one, others[0]


def _relays(site: Site) -> Wires:
    """The relays, which only links between processes have."""
    wires = site.wires
    assert isinstance(wires, Wires), "containers refuse what takes relays"
    return wires


# -- disks and clocks --------------------------------------------------------------------------


def slow_disk(site: Site, strike: Strike) -> Acting:
    """strace holds up each sync of a node; it slows the whole process down as well."""
    name = site.victim(strike)
    pid = None if name is None else site.network.node(name).pid
    if name is None or pid is None:
        return 0
    delay_us = int(1e6 * (strike.by_s or 0.03 + 0.27 * strike.chance))
    seen = site.home / f"{name}.strace"
    with site.keeping([name]), seen.open("wb") as output:
        tracer = subprocess.Popen(
            [
                *("strace", "-f", "-qq", "-p", str(pid), "-e", "trace=fsync,fdatasync"),
                *("-e", f"inject=fsync,fdatasync:delay_exit={delay_us}"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=output,
        )
        try:
            yield
            # A machine that is busy attaches late: the node is held up before it is let go.
            wait(lambda: b"(DELAYED)" in seen.read_bytes(), _SEEN_S)
        finally:
            tracer.send_signal(SIGINT)
            try:
                tracer.wait(_GONE_S)
            except subprocess.TimeoutExpired:
                tracer.kill()
                tracer.wait()
    return int(b"(DELAYED)" in seen.read_bytes())


def disk_full(site: Site, strike: Strike) -> Acting:
    """Nothing is left on the small disk of a node, or too little for its liking."""
    name = site.victim(strike)
    if name is None:
        return 0
    node = site.network.node(name)
    ballast = node.config.node.data_dir / "ballast"
    with site.keeping([name]):
        site.explain(name, SyncFailedError.exit_code)
        try:
            _fill(ballast, 0 if strike.chance < 0.6 else DISK_FREE_BYTES_MIN // 2)
            yield
            struck = node.exit_code == SyncFailedError.exit_code or _says_disk(node)
        finally:
            ballast.unlink(missing_ok=True)
        site.start_ended([name])
    return int(struck)


def _fill(ballast: Path, leave_bytes: int) -> None:
    with ballast.open("wb") as file:
        for _ in range(100):
            room = os.statvfs(ballast.parent)
            more = room.f_bavail * room.f_frsize - leave_bytes
            if more <= 0:
                return
            # The node writes meanwhile: then there is less than was just seen.
            with contextlib.suppress(OSError):
                os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), more)


def _says_disk(node: LocalNode) -> bool:
    status = _status(node)
    return status is not None and any("disk" in alarm for alarm in status["alarms"])


def clock(site: Site, strike: Strike) -> Acting:
    """A node's wall clock jumps, and back again."""
    name = site.victim(strike)
    if name is None:
        return 0
    offset_s = strike.by_s or _CLOCK_OFFSETS_S[int(strike.chance * len(_CLOCK_OFFSETS_S))]
    file = clock_file(site.network.node(name))
    with site.keeping([name]):
        shifted_clock.shift(file, int(offset_s * 1e9))
        try:
            yield
            struck = _is_off(site.network.node(name), offset_s)
        finally:
            shifted_clock.shift(file, 0)
    return int(struck)


def _is_off(node: LocalNode, offset_s: float) -> bool:
    """Whether the Date of a node's answers is off by about that much (RFC 9110 section 6.6.1)."""
    with node.client(ASK_S) as client:
        try:
            date = client.get("/livez").headers["date"]
        except (Unreachable, ApiProblem, KeyError):
            return False
    return abs(parsedate_to_datetime(date).timestamp() - time.time() - offset_s) < abs(offset_s) / 2


ACTS: Final[dict[str, Callable[[Site, Strike], Acting]]] = {
    "kill": kill,
    "term": term,
    "pause": pause,
    "partition": partition,
    "one-way": one_way,
    "flap": flap,
    "delay": delay,
    "slow-link": slow_link,
    "reset": reset,
    "half-open": half_open,
    "slow-disk": slow_disk,
    "disk-full": disk_full,
    "clock": clock,
    "members": members.members,
}


def _status(node: LocalNode) -> Any:
    return get(node, "/v1/status")


def clock_file(node: LocalNode) -> Path:
    """The file that says how far a node's clock is off."""
    return node.directory / "clock.offset"
