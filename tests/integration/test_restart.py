"""A node with a long ledger starts again: how long until it is ready."""

import time
from pathlib import Path
from typing import Final

import pytest

from p2pcity.city.membership import State
from p2pcity.cli.testnet.local_network import LocalNetwork
from p2pcity.cli.testnet.making import GENESIS_FILE
from p2pcity.ledger.segment_log import SegmentLog
from p2pcity.wire import block, genesis
from p2pcity.wire.limits import RULES_VERSION
from p2pcity.wire.raft import Entry, HardState
from tests.integration.process_case import AUTHOR, Author, ask, assert_no_bugs

pytestmark = [pytest.mark.integration, pytest.mark.long]

TRANSACTIONS: Final = 100_000
_CATCH_UP_S: Final = 600.0
_STARTS: Final = 5


def write_ledger(network: LocalNetwork, size: int, per_block: int) -> None:
    """Put `size` transactions into the log of the only node, as its own term 1 had left them."""
    author = Author(network)
    city = genesis.decode((network.directory / GENESIS_FILE).read_bytes())
    voters = State.from_genesis(city).voters_digest
    log = SegmentLog.open(network.nodes[0].config.node.data_dir / "log")
    log.bind_network(city.network)
    parent = city.network
    for height in range(1, size // per_block + 1):
        carried = [author.sign() for _ in range(per_block)]
        made = block.make(
            height, parent, time.time_ns() // 1_000_000, carried, 0, voters, RULES_VERSION
        )
        parent = made.hash
        log.save(HardState(1, None, height - 1), [Entry(1, height, made.data)], height % 100 == 0)
    log.save(HardState(1, None, height), [], True)
    log.close()


def restart_times(network: LocalNetwork, size: int) -> list[float]:
    """Kill the only node again and again; how long each start took, with imports, in s."""
    [node] = network.nodes
    took_s = []
    for _ in range(_STARTS):
        network.kill(node.name)
        begin_s = time.monotonic()
        network.restart(node.name)
        took_s.append(time.monotonic() - begin_s)
        ledger = ask(network, node.name, "/v1/status")["ledger"]
        assert ledger["tree_size"] == size
    return took_s


@pytest.mark.parametrize("per_block", [10, 1])
@pytest.mark.scenario("A16", tier="P")
def test_ready_again_with_100_000_transactions(tmp_path: Path, per_block: int) -> None:
    network = LocalNetwork.create(tmp_path / "net", nodes=1, orderers=1, authors=(AUTHOR,))
    node = network.nodes[0]
    try:
        write_ledger(network, TRANSACTIONS, per_block)
        network.start()
        network.wait_ready(deadline_s=_CATCH_UP_S)
        took_s = restart_times(network, TRANSACTIONS)
        assert_no_bugs(network)
    finally:
        network.stop(deadline_s=0)
    # The same node without a ledger, for comparison: most of a start is the imports.
    with LocalNetwork.create(tmp_path / "empty", nodes=1, orderers=1, authors=(AUTHOR,)) as empty:
        empty.start()
        empty.wait_ready()
        empty_s = restart_times(empty, 0)
    size = sum(file.stat().st_size for file in node.config.node.data_dir.glob("log/*"))
    print(
        f"{TRANSACTIONS} transactions, {per_block} a block, log of {size >> 20} MiB: ready after "
        f"{', '.join(f'{one_s:.2f}' for one_s in sorted(took_s))} s; with an empty log "
        f"{', '.join(f'{one_s:.2f}' for one_s in sorted(empty_s))} s"
    )
