"""The checker of histories: it accepts what is right and rejects whatever was damaged."""

import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from p2pcity.cli.chaos import history
from p2pcity.cli.chaos.checker import check
from p2pcity.cli.chaos.history import LedgerCopy, Operation, Placed
from p2pcity.errors import ConfigError
from tests.chaos_damages import DAMAGES, Damage
from tests.chaos_histories import make

SEEDS = 80


def test_good_histories_are_accepted() -> None:
    kinds: Counter[str] = Counter()
    for seed in range(200):
        operations, ledgers = make(seed)
        findings = check(operations, ledgers)
        assert not findings.counts, (seed, findings.shown)
        kinds.update(f"{o.kind} {o.outcome} {o.status}" for o in operations)
    # Not vacuous: every kind of operation and answer is among them.
    assert {
        "submit ok committed",
        "submit ok duplicate",
        "submit unknown ",
        "submit fail ",
        "accept ok pending",
        "read ok committed",
        "read ok unknown",
        "query ok ",
        "local ok ",
        "stream ok ",
    } <= set(kinds)


@pytest.mark.parametrize(
    ("damage", "kind"), [pytest.param(*item, id=item[0].__name__) for item in DAMAGES]
)
def test_damaged_histories_are_rejected(damage: Damage, kind: str) -> None:
    """34 ways to damage times 80 seeds: 2,720 less those with nothing to damage so."""
    found: Counter[str] = Counter()
    for seed in range(SEEDS):
        damaged = damage(Random(seed), *make(seed))
        if damaged is None:
            continue
        findings = check(*damaged)
        assert findings.counts[kind], f"seed {seed}: {findings.shown}"
        found["rejected"] += 1
        found.update(findings.counts.keys())
    assert found["rejected"] >= 65, "too few histories could be damaged so: 34 * 65 > 2,000"
    print(dict(found))


def test_a_history_without_ledgers_is_rejected() -> None:
    operations, _ = make(1)
    assert check(operations, []).counts["unequal"] == 1


def pruned(copy: LedgerCopy, first: int) -> LedgerCopy:
    """What is left of a ledger once a node keeps nothing below `first`."""
    return replace(
        copy,
        hashes=(copy.hashes[0], *[""] * (first - 1), *copy.hashes[first:]),
        transactions=tuple(item for item in copy.transactions if item.height >= first),
        events=tuple(item for item in copy.events if int(item[0].split(".")[0]) >= first),
        changes=tuple(item for item in copy.changes if item >= first),
        first=first,
    )


def test_nodes_that_pruned_are_compared_as_far_as_they_go(tmp_path: Path) -> None:
    operations, (one, other, third) = make(2)
    copies = [pruned(one, 9), other, pruned(third, 17)]
    assert not check(operations, copies).counts
    history.write_ledgers(tmp_path / "ledgers", copies)
    assert history.read_ledgers(tmp_path / "ledgers") == copies
    odd = replace(copies[2], hashes=(*copies[2].hashes[:-1], "ff"))
    assert check(operations, [*copies[:2], odd]).counts["unequal"] == 1
    short = replace(copies[2], transactions=copies[2].transactions[1:])
    assert check(operations, [*copies[:2], short]).counts["unequal"] == 1


def test_somebody_must_keep_all() -> None:
    operations, ledgers = make(2)
    [found] = check(operations, [pruned(copy, 9) for copy in ledgers]).shown
    assert (found.kind, found.says) == (
        "unequal",
        "nobody keeps the blocks below 9: they were pruned",
    )


def test_findings_are_counted_and_the_first_are_shown() -> None:
    operations, ledgers = make(1)
    empty = [LedgerCopy(copy.node, copy.hashes, (), ()) for copy in ledgers]
    findings = check(operations, empty)
    assert findings.counts["lost"] > 20
    assert sum(item.kind == "lost" for item in findings.shown) == 5


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    operations, ledgers = make(3)
    file, other = tmp_path / "history.ndjson", tmp_path / "ledgers.ndjson"
    file.write_text("".join(o.to_line() + "\n" for o in operations), encoding="utf-8")
    ledgers[2] = replace(ledgers[2], hashes=ledgers[2].hashes[:-1])
    history.write_ledgers(other, ledgers)
    assert history.read(file) == operations
    assert history.read_ledgers(other) == ledgers
    with pytest.raises(ConfigError, match="line 1 is no operation"):
        history.read(other)
    with pytest.raises(ConfigError, match="no file of ledgers"):
        history.read_ledgers(file)
    with pytest.raises(ConfigError):
        history.read(tmp_path / "absent")


def _large(count: int) -> tuple[list[Operation], list[LedgerCopy]]:
    """`count` operations: writes and reads of a ledger that grows by ten a block."""
    operations, transactions, events = [], [], []
    hashes = tuple(f"{height:064x}" for height in range(count // 20 + 2))
    for number in range(count // 2):
        id_, height = f"{number:064x}", number // 10 + 1
        at_ns = number * 1000
        transactions.append(Placed(id_, height, "applied", number))
        events.append((f"{height}.{number % 10}.0", id_, f"event-{number}"))
        # The block is there once the tenth of it was sent.
        end_ns = (height * 10 + 5) * 1000 + number
        told = Operation(
            *("submit", 1, f"node{number % 3}", at_ns, end_ns, "ok", id_, (f"event-{number}",)),
            status="committed",
            height=height,
            leaf_index=number,
            head_height=height,
            head=hashes[height],
        )
        read = replace(told, kind="read", process=2, called_ns=end_ns, returned_ns=end_ns + 9)
        operations += [told, read]
    copies = [LedgerCopy(f"node{n}", hashes, tuple(transactions), tuple(events)) for n in range(3)]
    return operations, copies


def test_time_grows_with_the_operations_not_with_their_square() -> None:
    """100,000 operations take about as long as twenty times 5,000; the ratio is the measure."""
    small, large = _large(5_000), _large(100_000)

    def best_s(case: tuple[list[Operation], list[LedgerCopy]]) -> float:
        taken = []
        for _ in range(2):
            begin_s = time.process_time()
            findings = check(*case)
            taken.append(time.process_time() - begin_s)
            assert not findings.counts, findings.shown
        return min(taken)

    small_s, large_s = best_s(small), best_s(large)
    print(f"5,000 operations: {small_s:.3f} s; 100,000: {large_s:.3f} s of CPU")
    assert large_s < 80 * small_s
