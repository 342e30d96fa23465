"""Two nodes that know nothing but each other's keys find each other by mDNS."""

import socket
from dataclasses import replace

import pytest
import trio

from p2pcity.net.discovery import local_addresses
from tests.net_case import Place, connect_all, make_places, running

pytestmark = pytest.mark.integration


def has_multicast() -> bool:
    """Tell whether this machine can send to the mDNS group (RFC 6762: 224.0.0.251, port 5353)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.sendto(b"", ("224.0.0.251", 5353))
        except OSError:
            return False
    return bool(local_addresses(1))


def on_all_interfaces(place: Place) -> None:
    place.config = replace(place.config, listen=(f"/ip4/0.0.0.0/tcp/{place.port}",), has_mdns=True)
    place.make_network()


async def test_two_nodes_find_each_other() -> None:
    if not has_multicast():
        pytest.skip("no interface of this machine does multicast")
    one, two = make_places(2)
    for place, other in ((one, two), (two, one)):
        on_all_interfaces(place)
        place.allowed.add(other.id)
    async with running(one, two):
        await connect_all([one, two])
        sources = {
            source
            for place in (one, two)
            for record in place.network._book.records()
            for source in record.addresses.values()
        }
        assert "mdns" in sources


async def test_a_machine_without_multicast_goes_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError(19, "No such device")

    monkeypatch.setattr("p2pcity.net.discovery.Zeroconf", fail)
    one, two = make_places(2)
    one.config = replace(one.config, has_mdns=True)
    one.make_network()
    one.knows(two)
    two.knows(one)
    async with running(one, two):
        await connect_all([one, two])
        await trio.lowlevel.checkpoint()
