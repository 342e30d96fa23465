"""A follower far behind: which voter to ask for committed entries, and whether the answer fits."""

from collections.abc import Collection, Sequence
from typing import Final

from p2pcity.errors import DecodeError
from p2pcity.wire import block
from p2pcity.wire.sync import EntriesAnswer, EntriesQuery

WRONG_REST_S: Final = 60.0
EMPTY_REST_S: Final = 1.0


class Feeding:
    """Asks one voter after the other; who gave nothing or nonsense rests for a while.

    Times are seconds of one steady clock.
    """

    def __init__(self) -> None:
        self._rests_until_s: dict[str, float] = {}
        self._last = ""
        self._head: tuple[int, bytes] | None = None

    def choose(self, sources: Collection[str], now_s: float) -> str | None:
        """Return whom to ask now, in turn; None when nobody is left."""
        ready = sorted(peer for peer in sources if self._rests_until_s.get(peer, 0.0) <= now_s)
        if not ready:
            return None
        self._last = next((peer for peer in ready if peer > self._last), ready[0])
        return self._last

    def failed(self, peer: str, now_s: float, *, is_wrong: bool) -> None:
        """The peer gave nothing, or something wrong."""
        rest_s = WRONG_REST_S if is_wrong else EMPTY_REST_S
        self._rests_until_s = {
            name: until_s for name, until_s in self._rests_until_s.items() if until_s > now_s
        }
        self._rests_until_s[peer] = now_s + rest_s

    def check(self, question: EntriesQuery, answer: EntriesAnswer) -> EntriesAnswer:
        """Return the answer without what is not committed; DecodeError when it contradicts itself.

        Blocks name their parents: within the answer, and over the answers that follow each other.
        """
        if answer.index != question.index:
            raise DecodeError("the answer is to another question")
        count = max(0, answer.commit - question.index + 1)
        entries = answer.entries[:count]
        known = self._head
        head = known[1] if known is not None and known[0] == question.index - 1 else None
        head = _follow(head, [entry.payload for entry in entries])
        if entries and head is not None:
            self._head = (entries[-1].index, head)
        return EntriesAnswer(answer.index, answer.term, answer.commit, entries)


def _follow(head: bytes | None, payloads: Sequence[bytes]) -> bytes | None:
    """Return the hash of the last block; DecodeError when one does not name the one before."""
    for payload in payloads:
        if not payload:
            continue
        header, hash_ = block.read_header(payload)
        if head is not None and header.parent != head:
            raise DecodeError(f"the block at height {header.height} names another parent")
        head = hash_
    return head
