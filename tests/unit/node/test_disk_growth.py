"""How fast a node's files grow, by looks at sizes that the test makes up."""

import trio
import trio.testing

from p2pcity.node.disk_growth import LOOK_S, DiskGrowth, Growth

DAY_S = 86_400


def test_nothing_is_said_before_the_second_look() -> None:
    growth = DiskGrowth(lambda: 1000)
    assert growth.seen() is None
    growth.look(0.0)
    assert growth.seen() is None
    growth.look(600.0)
    assert growth.seen() == Growth(0, 600.0)


def test_only_the_last_day_counts_and_no_more_is_kept() -> None:
    """A quick beginning is forgotten a day later; what shrinks is said to shrink."""
    now_s, size = 0.0, 0
    growth = DiskGrowth(lambda: size)
    for step in [1_000_000] * 10 + [500] * 200:
        growth.look(now_s)
        now_s, size = now_s + LOOK_S, size + step
    assert growth.seen() == Growth(500 * 144, DAY_S)
    for _ in range(144):
        growth.look(now_s)
        now_s, size = now_s + LOOK_S, size - 100
    seen = growth.seen()
    assert seen is not None
    # 143 of a day's 144 steps went down, the first of them still up.
    assert seen == Growth(500 - 100 * 143, DAY_S)


async def test_it_looks_by_itself(autojump_clock: trio.testing.MockClock) -> None:
    size = 0
    growth = DiskGrowth(lambda: size)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(growth.run)
        await trio.sleep(1)
        size = 7_200
        await trio.sleep(7_200)
        nursery.cancel_scope.cancel()
    assert growth.seen() == Growth(86_400, 7_200.0)
