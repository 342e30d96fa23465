"""The way in: each transaction is judged once, in order, and what is admitted is told once."""

import trio

from p2pcity.admission.admission import AdmissionConfig
from p2pcity.admission.rules import REASONS
from p2pcity.mempool.mempool import MempoolConfig
from tests.chain_case import CLERK, NOW_MS, STRANGER
from tests.node_case import Door, ids
from tests.views_case import harmed


async def test_verdicts_come_in_the_order_of_what_was_brought() -> None:
    door = Door()
    good = [door.chain.carried() for _ in range(40)]
    items = [item.data for item in good]
    items[3] = b"rubbish"
    items[20] = harmed(good[20]).data
    items[30] = items[29]
    admitted = await door.intake.admit(items, "peer")
    reasons = [item.verdict.reason for item in admitted]
    assert {at: reason for at, reason in enumerate(reasons) if reason != "accepted"} == {
        3: "malformed",
        20: "signature",
        30: "duplicate",
    }
    accepted = [item for at, item in enumerate(good) if at not in (3, 20, 30)]
    assert [(ids(carried), peer) for carried, peer in door.admitted] == [(ids(accepted), "peer")]
    assert door.rejected == [("malformed", "peer"), ("signature", "peer")]
    assert len(door.mempool) == 37


async def test_a_transaction_brought_twice_at_once_is_admitted_once() -> None:
    door = Door()
    carried = [door.chain.carried() for _ in range(20)]

    async def bring(peer: str) -> None:
        await door.intake.admit([item.data for item in carried], peer)

    async with trio.open_nursery() as nursery:
        for peer in ("a", "b", "c"):
            nursery.start_soon(bring, peer)
    assert sorted(id_ for told, _ in door.admitted for id_ in ids(told)) == sorted(ids(carried))
    assert len(door.mempool) == 20


async def test_a_full_mempool_ignores_and_takes_the_same_bytes_later() -> None:
    door = Door(mempool=MempoolConfig(transactions_max=2))
    carried = [door.chain.carried() for _ in range(3)]
    admitted = await door.intake.admit([item.data for item in carried], None)
    assert [item.verdict.reason for item in admitted] == ["accepted", "accepted", "queue-full"]
    door.mempool.remove(ids(carried[:1]))
    [again] = await door.intake.admit([carried[2].data], None)
    assert again.is_accepted


async def test_room_made_by_expiry_is_told_by_the_next_expire() -> None:
    door = Door(mempool=MempoolConfig(transactions_max=1))
    short = door.chain.carried(expires_ms=NOW_MS + 100)
    await door.intake.admit([short.data], None)
    door.now_ms += 200
    [admitted] = await door.intake.admit([door.chain.carried().data], None)
    assert admitted.is_accepted
    assert door.mempool.expire(door.now_ms) == ids([short])
    assert door.mempool.expire(door.now_ms) == []


async def test_what_depends_on_the_state_costs_no_blame_and_is_judged_afresh() -> None:
    door = Door()
    stranger = door.chain.carried(key=STRANGER)
    clerk = door.chain.carried(door.chain.event(type="tax.paid"), key=CLERK)
    for _ in range(2):
        admitted = await door.intake.admit([stranger.data, clerk.data], "peer")
        assert [item.verdict.reason for item in admitted] == ["author-unknown", "type-not-allowed"]
    assert door.rejected == []


async def test_the_counters_have_one_key_for_each_reason_of_the_registry() -> None:
    door = Door(AdmissionConfig(peer_per_second=5, peer_burst=5))
    for number in range(50):
        await door.intake.admit([bytes([number]), door.chain.carried().data], f"peer {number % 3}")
    assert {reason for _, reason in door.intake.verdicts} <= REASONS
    assert sum(door.intake.verdicts.values()) == 100
    assert ("ignore", "peer-quota") in door.intake.verdicts
