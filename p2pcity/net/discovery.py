"""Finding peers on the local network by mDNS (libp2p's mDNS discovery specification).

zeroconf works in threads of its own: what it finds enters trio by the token of the run, and its
blocking calls (registering takes over a second) run in a worker thread.
"""

import ipaddress
import socket
from collections.abc import Callable, Sequence
from typing import Final

import ifaddr
import structlog
import trio
from zeroconf import ServiceBrowser, ServiceInfo, ServiceListener, Zeroconf

_SERVICE: Final = "_p2p._udp.local."
_LOOKUP_MS: Final = 3000
_ADDRESSES_MAX: Final = 8
_TEXT_MAX: Final = 256

_logger = structlog.get_logger("p2pcity.net.discovery")

OnFound = Callable[[str, Sequence[str]], None]


def parse_records(properties: dict[bytes, bytes | None]) -> dict[str, list[str]]:
    """Return peer id -> multiaddrs of a service's TXT records; what is no address is left out."""
    found: dict[str, list[str]] = {}
    for name, value in list(properties.items())[:_ADDRESSES_MAX]:
        if not name.startswith(b"dnsaddr") or not value or len(value) > _TEXT_MAX:
            continue
        text = value.decode("ascii", "replace")
        head, _, peer = text.rpartition("/p2p/")
        if head and peer and "/" not in peer:
            found.setdefault(peer, []).append(text)
    return found


class _Listener(ServiceListener):
    """Called by zeroconf in its thread."""

    def __init__(self, own_name: str, on_found: Callable[[str, list[str]], None]) -> None:
        self._own_name = own_name
        self._on_found = on_found

    def add_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        if name == self._own_name:
            return
        info = zc.get_service_info(type_, name, timeout=_LOOKUP_MS)
        if info is not None:
            for peer, addresses in parse_records(info.properties).items():
                self._on_found(peer, addresses)

    def update_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        self.add_service(zc, type_, name)

    def remove_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        # A peer that leaves the network is noticed at its connection.
        return


async def run_mdns(own: str, addresses: Callable[[], Sequence[str]], on_found: OnFound) -> None:
    """Announce this node and report others for as long as it runs.

    `on_found(peer, addresses)` is called in the trio thread with whatever is announced, by
    whomever: the caller checks. A machine without multicast is logged, once, and goes without.
    """
    token = trio.lowlevel.current_trio_token()
    name = f"{own}.{_SERVICE}"

    def report(peer: str, found: list[str]) -> None:
        try:
            token.run_sync_soon(on_found, peer, found)
        except trio.RunFinishedError:
            return

    def start() -> Zeroconf:
        service = Zeroconf()
        texts = {
            (b"dnsaddr" if index == 0 else f"dnsaddr{index + 1}".encode()): text.encode()
            for index, text in enumerate(list(addresses())[:_ADDRESSES_MAX])
        }
        info = ServiceInfo(
            _SERVICE,
            name,
            port=_port(addresses()),
            properties=texts,
            server=f"{own}.local.",
            addresses=[ip.packed for ip in _ips(addresses())],
        )
        service.register_service(info)
        ServiceBrowser(service, _SERVICE, listener=_Listener(name, report))
        return service

    try:
        service = await trio.to_thread.run_sync(start)
    except Exception as error:  # noqa: BLE001
        # A task's root: zeroconf raises what sockets and DNS raise; the node goes on without.
        _logger.warning("mdns_unavailable", reason=f"{type(error).__name__}: {error}")
        return
    try:
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True), trio.move_on_after(1):
            await trio.to_thread.run_sync(
                service.close,
                abandon_on_cancel=True,  # type: ignore[call-arg]  # stubs older than trio
            )


def _port(addresses: Sequence[str]) -> int:
    for text in addresses:
        parts = text.split("/")
        if len(parts) > 4 and parts[3] == "tcp":
            return int(parts[4])
    return 0


def _ips(addresses: Sequence[str]) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    found = []
    for text in addresses:
        parts = text.split("/")
        if len(parts) > 2 and parts[1] in ("ip4", "ip6"):
            found.append(ipaddress.ip_address(parts[2]))
    return found


def local_addresses(port: int) -> list[str]:
    """Return the multiaddrs under which others on the local network reach this machine.

    The route to a documentation address (RFC 5737, RFC 3849) tells which interface is used; no
    packet is sent.
    """
    found = []
    for family, target, name in (
        (socket.AF_INET, "192.0.2.1", "ip4"),
        (socket.AF_INET6, "2001:db8::1", "ip6"),
    ):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((target, 9))
                found.append(f"/{name}/{probe.getsockname()[0]}/tcp/{port}")
        except OSError:
            continue
    # A network of its own, without a gateway: what the interfaces have.
    return found or [
        f"/ip4/{ip.ip}/tcp/{port}"
        for adapter in ifaddr.get_adapters()
        for ip in adapter.ips
        if isinstance(ip.ip, str) and not ipaddress.ip_address(ip.ip).is_loopback
    ]
