"""js-libp2p talks to a node: hello, ping, identify, gossip both ways, signatures checked there."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import trio

from p2pcity.crypto.keys import PrivateKey, peer_id
from p2pcity.wire import transaction
from p2pcity.wire.event import Event
from p2pcity.wire.gossip import decode_batch, encode_batch
from p2pcity.wire.hello import parameters_digest
from tests.net_case import NETWORK, PREFIX, make_places, running

pytestmark = pytest.mark.interop

HERE = Path(__file__).resolve().parent
_INSTALL_S = 180
_RUN_S = 40


@pytest.fixture(scope="module")
def node_program() -> str:
    """The path of Node, with the packages of package-lock.json installed."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are needed to run js-libp2p")
    if not (HERE / "node_modules").is_dir():
        done = subprocess.run(
            [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=HERE,
            capture_output=True,
            text=True,
            timeout=_INSTALL_S,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"npm ci failed: {done.stderr[-300:]}")
    return node


def make_event(number: int) -> Event:
    return Event(
        salt=bytes([number]) * 16,
        id=f"permit-{number}",
        type="city.permit.granted",
        source="https://city.example/permits",
        subject=None,
        time_ms=1_700_000_000_000 + number,
        place=(-739_857_000, 407_484_000),
        dataschema=None,
        datacontenttype=None,
        data={"floors": number, "use": "residential"},
        extensions={},
    )


async def test_js_libp2p(node_program: str) -> None:
    (place,) = make_places(1)
    stranger = PrivateKey.generate()
    stranger_id = peer_id(stranger.public)
    place.allowed.add(stranger_id)
    author = PrivateKey.generate()
    events = [make_event(number) for number in range(3)]
    carried = transaction.make(author, NETWORK, events, 1_800_000_000_000, bytes(16))
    async with running(place) as nursery:
        process = await trio.lowlevel.open_process(
            [
                node_program,
                str(HERE / "peer.mjs"),
                place.address,
                stranger.seed.hex(),
                NETWORK.hex(),
                parameters_digest().hex(),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=HERE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        with trio.fail_after(_RUN_S):
            pubsub = place.network._pubsub
            assert pubsub is not None
            await place.wait_until(lambda: pubsub.is_in_mesh(stranger_id))
            await place.network.publish(encode_batch([carried.data]))
            said = json.loads(await _read_line(process.stdout))
            await place.wait_until(lambda: bool(place.gossip))
            await process.stdin.send_all(b"enough\n")
            assert await process.wait() == 0
        del nursery

    assert said["hello"] == {"key": place.key.public.hex(), "height": 7}
    assert said["pingMs"] < 1000
    assert f"{PREFIX}/raft/1" in said["protocols"]
    assert "/meshsub/1.1.0" in said["protocols"]
    assert said["transactions"] == [
        {
            "id": carried.transaction.id.hex(),
            "author": author.public.hex(),
            "events": ["city.permit.granted"] * 3,
        }
    ]
    # What it said again came back whole, under its own signature.
    assert place.gossip[0][0] == stranger_id
    assert decode_batch(place.gossip[0][1]) == [carried.data]


async def _read_line(stream: trio.abc.ReceiveStream) -> bytes:
    found = b""
    while not found.endswith(b"\n"):
        chunk = await stream.receive_some()
        assert chunk, "js-libp2p ended before it said anything"
        found += chunk
    return found
