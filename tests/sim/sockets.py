"""What waits while a node sleeps, and in which order it comes in when it wakes."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

Call = tuple[int, Callable[..., None], tuple[Any, ...]]
"""(life, function, arguments): something that was to happen to the node."""


def as_read(held: Sequence[Call], receive: Callable[..., None], random: Random) -> Iterator[Call]:
    """Give what was held, each sender's messages in their order, the sockets in any."""
    senders: dict[object, deque[Call]] = {}
    for number, call in enumerate(held):
        sender = call[2][0] if call[1] == receive else number
        senders.setdefault(sender, deque()).append(call)
    queues = list(senders.values())
    while queues:
        at = random.randrange(len(queues))
        yield queues[at].popleft()
        if not queues[at]:
            del queues[at]
