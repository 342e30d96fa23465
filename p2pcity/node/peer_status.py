"""What the peers say of themselves: height, applied index and clock, asked every few seconds.

Voters each time, for their clocks and promises; of the others a part, in turn.
"""

from collections.abc import Callable
from dataclasses import replace

import structlog
import trio

from p2pcity.errors import LocalError, RemoteError
from p2pcity.net.network import Network
from p2pcity.node.moments import Moments
from p2pcity.ordering.clocks import Clocks
from p2pcity.sync.turns import Turns
from p2pcity.wire import sync as sync_wire
from p2pcity.wire.sync import StatusAnswer, StatusQuery

_PERIOD_S = 2.0
_DEADLINE_S = 2.0
# Each of the others is asked within so many rounds; a few of them in each, if there are as many.
_ROUNDS_MAX = 4
_OTHERS_MIN = 3

_logger = structlog.get_logger("p2pcity.node.peer_status")


class PeerStatus:
    """Asks every connected peer, and answers those who ask."""

    def __init__(
        self,
        *,
        network: Network,
        own: Callable[[], StatusAnswer],
        now_ms: Callable[[], int],
        clocks: Clocks,
        is_voter: Callable[[str], bool],
        on_answer: Callable[[str, StatusAnswer], None],
        moments: Moments,
    ) -> None:
        self._network = network
        self._own = own
        self._now_ms = now_ms
        self._clocks = clocks
        self._is_voter = is_voter
        self._on_answer = on_answer
        self._moments = moments
        self._answers: dict[str, StatusAnswer] = {}
        self._turns = Turns()
        self._clock_offsets_ms: dict[str, int] = {}

    def of(self, peer: str) -> StatusAnswer | None:
        """The last answer of a connected peer."""
        return self._answers.get(peer)

    def highest(self) -> int:
        """The height of the longest ledger that a connected peer told of; 0 for none."""
        return max((answer.height for answer in self._answers.values()), default=0)

    def clock_offset_ms(self, peer: str) -> int | None:
        """How far the peer's clock is ahead of ours, half the round trip taken off."""
        return self._clock_offsets_ms.get(peer)

    def forget(self, peer: str) -> None:
        """Drop what a peer said that is no longer connected."""
        self._answers.pop(peer, None)
        self._turns.forget(peer)
        self._clock_offsets_ms.pop(peer, None)

    async def run(self) -> None:
        """Ask for as long as the node runs."""
        while True:
            async with trio.open_nursery() as nursery:
                for peer in self._next():
                    nursery.start_soon(self._ask, peer)
            await trio.sleep(_PERIOD_S)

    def _next(self) -> list[str]:
        """All voters, and of the others those whose turn it is."""
        peers = [info.peer for info in self._network.peers() if info.is_connected]
        others = [peer for peer in peers if not self._is_voter(peer)]
        turn = self._turns.take(others, max(_OTHERS_MIN, -(-len(others) // _ROUNDS_MAX)))
        return [*(peer for peer in peers if self._is_voter(peer)), *turn]

    async def _ask(self, peer: str) -> None:
        asked_ms, asked_steady_ms = self._now_ms(), self._clocks.steady_ms()
        try:
            data = await self._network.request(
                peer, "status", sync_wire.encode(StatusQuery()), _DEADLINE_S
            )
            answer = sync_wire.decode_answer(data)
        except (RemoteError, LocalError) as error:
            _logger.debug("status_failed", peer=peer, reason=str(error))
            return
        if not isinstance(answer, StatusAnswer):
            self._network.penalise(peer)
            return
        if self._network.is_connected(peer):
            self._answers[peer] = answer
            self._clocks.heard(peer, answer.time_ms, asked_steady_ms)
            self._on_answer(peer, answer)
            self._clock_offsets_ms[peer] = answer.time_ms - (asked_ms + self._now_ms()) // 2

    def answer(self, data: bytes) -> bytes:
        """Answer a peer's question; raises DecodeError for what is no question."""
        question = sync_wire.decode_request(data)
        answer = self._own()
        if isinstance(question, StatusQuery) and question.trace is not None:
            answer = replace(answer, trace=self._moments.of(question.trace))
        return sync_wire.encode(answer)
