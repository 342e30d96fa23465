"""Runs p2pcity with gossip switched off: `python -m tests.integration.without_gossip run ...`.

No setting does that. A connection carries gossip and Raft in one encrypted stream of bytes, so
that nobody on the wire can take one of them away.
"""

import sys

import trio
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2

from p2pcity.cli.main import main as run
from p2pcity.net.gossip import CityGossipSub


async def _keep(self: CityGossipSub, msg_forwarder: ID, pubsub_msg: rpc_pb2.Message) -> None:
    """Neither pass a message on nor keep it for who asks."""
    await trio.lowlevel.checkpoint()


def main() -> None:
    """Do what the command line says, without gossip."""
    CityGossipSub.publish = _keep  # type: ignore[method-assign]  # of this process alone
    run(sys.argv[1:])


if __name__ == "__main__":
    main()
