"""A thousand bits gone bad in the logs of real nodes: none served, none voted on, all mended."""

import os
import random
import time
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from p2pcity.cli.testnet.local_network import LocalNetwork
from p2pcity.ledger import records
from p2pcity.ledger.records import Kind, Record
from tests.integration.process_case import (
    Load,
    ask,
    log_lines,
    others,
    running_network,
    verify,
    wait_equal,
    wait_until,
)
from tests.segment_case import flip, last_file

pytestmark = [pytest.mark.integration, pytest.mark.long]

FLIPS: Final = int(os.environ.get("TESTS_BIT_FLIPS", "1000"))
AT_ONCE: Final = 25
REPAIRED_S: Final = 30.0
SAID: Final = ("log_repaired", "log_damage_left")


def places(file: Path) -> list[Record]:
    """All records below the last sync mark: what the node promised to keep."""
    buffer = file.read_bytes()
    _, record = records.parse_file_header(buffer)
    found = [record]
    while record.offset + record.length < len(buffer):
        record = records.parse_record(buffer, record.offset + record.length, record.checksum)
        found.append(record)
    while found.pop().kind != Kind.SYNC_MARK:
        pass
    return found


def damage(network: LocalNetwork, name: str, rng: random.Random, flips: int) -> int:
    """Flip bits anywhere in a stopped node's log; how many records were hit."""
    file = last_file(network.node(name).config.node.data_dir / "log")
    found = places(file)
    size = found[-1].offset + found[-1].length
    hit = set()
    for bit in rng.sample(range(8 * size), flips):
        flip(file, bit)
        hit.add(max((record.offset for record in found if record.offset <= bit // 8), default=0))
    return len(hit)


def restart(network: LocalNetwork, name: str) -> tuple[float, Counter[str]]:
    """Start a node; after how many seconds it served, and what its log said by then.

    Until its log is whole again it serves nothing, and takes no part in Raft.
    """
    before = len(log_lines(network, name))
    begin_s = time.monotonic()
    network.start([name])

    def is_serving() -> bool:
        served = ask(network, name, "/v1/blocks/1")
        is_live = ask(network, name, "/livez") is not None
        assert is_live or served is None, f"{name} serves before it is alive"
        return is_live

    wait_until(is_serving, f"{name} serves", deadline_s=2 * REPAIRED_S)
    events = [line["event"] for line in log_lines(network, name)[before:]]
    last = max(at for at, event in enumerate(events) if event in SAID)
    assert "role" not in events[:last], f"{name} took part before its log was whole: {events}"
    return time.monotonic() - begin_s, Counter(events)


@pytest.mark.scenario("A5", tier="P")
def test_flips_in_the_logs_of_a_minority(tmp_path: Path) -> None:
    rng = random.Random(5)
    flipped = hit = 0
    said: Counter[str] = Counter()
    longest_s = 0.0
    with running_network(tmp_path) as network:
        with Load(network, clients=8) as load:
            load.wait_more(1_500, deadline_s=240)
        names = [node.name for node in network.nodes]
        told = list(load.acknowledged.values())
        while flipped < FLIPS:
            name = names[flipped // AT_ONCE % 3]
            wait_equal(network)
            network.kill(name)
            records_hit = damage(network, name, rng, AT_ONCE)
            with Load(network, targets=others(network, name), clients=2) as more:
                more.wait_more(5)
                took_s, events = restart(network, name)
            told += more.acknowledged.values()
            longest_s = max(longest_s, took_s)
            lines = Counter({event: events[event] for event in SAID})
            assert took_s < REPAIRED_S
            assert lines.total() == records_hit, f"{name}: {events}"
            flipped, hit, said = flipped + AT_ONCE, hit + records_hit, said + lines
        verify(network, told)
    print(f"{flipped} bits in {hit} records, {dict(said)}, served again after {longest_s:.1f} s")


@pytest.mark.scenario("A6", tier="P")
def test_flips_on_every_node_at_different_heights(tmp_path: Path) -> None:
    rng = random.Random(6)
    with running_network(tmp_path) as network:
        with Load(network) as load:
            load.wait_more(300, deadline_s=120)
        wait_equal(network)
        for node in network.nodes:
            network.kill(node.name)
        lines = {}
        for number, node in enumerate(network.nodes):
            lines[node.name] = len(log_lines(network, node.name))
            file = last_file(node.config.node.data_dir / "log")
            entries = [record for record in places(file) if record.kind == Kind.ENTRY]
            for record in entries[10 + number :: 30]:
                assert record.index % 30 == entries[10 + number].index % 30
                flip(file, 8 * record.offset + rng.randrange(8 * record.length))
        begin_s = time.monotonic()
        # Each has holes that only the others can fill: no one is ready before two of them run.
        network.start()
        network.wait_ready(deadline_s=REPAIRED_S)
        wait_equal(network, deadline_s=REPAIRED_S)
        print(f"all three agree again after {time.monotonic() - begin_s:.1f} s")
        for node in network.nodes:
            new = Counter(
                line["event"] for line in log_lines(network, node.name)[lines[node.name] :]
            )
            assert new["log_repaired"] >= 3
        verify(network, load.acknowledged.values())
