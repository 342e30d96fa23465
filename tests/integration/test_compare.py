"""`p2pcity compare` on real nodes: equal, behind, parted, pruned, of another network, gone."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from p2pcity.cli.testnet.local_network import LocalNetwork
from p2pcity.wire import transaction
from p2pcity.wire.limits import BASE_INTERVAL_BLOCKS
from tests.chain_case import Chain, make_genesis
from tests.integration.lone_nodes import NAME, CommandLine, make_chain, make_lone
from tests.integration.process_case import ask, wait_until

pytestmark = pytest.mark.integration


@contextmanager
def running(*networks: LocalNetwork) -> Iterator[list[str]]:
    """Run them; the paths of their sockets."""
    with ExitStack() as stack:
        for network in networks:
            stack.enter_context(network)
            network.start()
        for network in networks:
            network.wait_ready()
        yield [str(network.node(NAME).socket) for network in networks]


def ids_at(chain: Chain, height: int) -> list[str]:
    carried = chain.blocks[height - 1].transactions
    return [transaction.decode(transaction.signed_part(item)).id.hex() for item in carried]


def test_equal_and_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = CommandLine(capsys)
    late = make_lone(tmp_path / "late", make_chain(5))
    ahead = make_lone(tmp_path / "ahead", make_chain(8))
    with running(late, ahead) as (one, other):
        directory = str(late.node(NAME).directory)
        assert line.run("compare", directory, one, "--json") == 0
        assert line.document["schema"] == "p2pcity/compare/1"
        assert (line.document["verdict"], line.document["height"]) == ("equal", 5)
        assert line.document["difference"] is None
        assert line.run("compare", directory, one) == 0
        assert "equal up to height 5" in line.out
        assert "the same peer id" in line.out

        assert line.run("compare", one, other, "--json") == 0
        assert line.document["verdict"] == "behind"
        assert line.document["behind"] == [3, 0]
        assert line.run("compare", other, one) == 0
        assert "is behind by 3; no difference" in line.out

        ahead.stop()
        assert line.run("compare", one, other) == 4
        assert line.err.count("\n") == 1
        assert other in line.err
        assert "p2pcity run" in line.err


def test_where_ledgers_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = CommandLine(capsys)
    left, right = make_chain(8), make_chain(11, parts_at=6)
    foreign = Chain(make_genesis("elsewhere"))
    with running(
        make_lone(tmp_path / "l", left),
        make_lone(tmp_path / "r", right),
        make_lone(tmp_path / "f", foreign),
    ) as (one, other, third):
        assert line.run("compare", one, other, "--json") == 5
        found = line.document["difference"]
        assert line.document["verdict"] == "differ"
        assert (found["height"], found["is_first"]) == (6, True)
        ids = [ids_at(chain, 6) for chain in (left, right)]
        assert found["transactions"]["only"] == ids
        assert [block["height"] for block in found["blocks"]] == [6, 6]
        assert "parent" not in found["fields"]
        assert line.run("compare", one, other) == 5
        assert "DIFFERENT from height 6 on" in line.out
        assert ids[0][0][:16] in line.out
        assert "p2pcity check" in line.out

        assert line.run("compare", one, third, "--json") == 5
        assert line.document["verdict"] == "other-network"
        assert line.run("compare", one, third) == 5
        assert "two networks" in line.out


def test_what_was_pruned_is_neither_equal_nor_different(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = CommandLine(capsys)
    interval = BASE_INTERVAL_BLOCKS
    chains = {
        "late": make_chain(interval + 20, parts_at=interval + 11),
        "early": make_chain(interval + 20, parts_at=21),
        "short": make_chain(20),
    }
    pruned = make_lone(tmp_path / "pruned", make_chain(2 * interval), keep_blocks=interval)
    kept = [make_lone(tmp_path / name, chain) for name, chain in chains.items()]
    with running(pruned, *kept) as (own, late, parted, short):
        wait_until(
            lambda: ask(pruned, NAME, "/v1/status")["ledger"]["first_height"] == interval + 1,
            "the first blocks are pruned",
        )
        # They part above what was pruned.
        assert line.run("compare", own, late, "--json") == 5
        found = line.document["difference"]
        assert (found["height"], found["is_first"]) == (interval + 11, True)
        # They parted at 21; the oldest block that is kept names its parent, and that differs.
        assert line.run("compare", own, parted, "--json") == 5
        found = line.document["difference"]
        assert (found["height"], found["is_first"]) == (interval, False)
        assert found["blocks"][0] is None
        assert found["blocks"][1]["height"] == interval
        assert line.run("compare", parted, own) == 5
        assert "perhaps below it" in line.out
        # All that the third has was pruned.
        assert line.run("compare", own, short, "--json") == 1
        assert line.document["verdict"] == "unknown"
        assert line.run("compare", short, own) == 1
        assert "keep_blocks" in line.out
