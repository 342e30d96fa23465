"""A follower far behind: which voter to ask for committed entries, and whether the answer fits."""

from collections.abc import Sequence

from p2pcity.errors import DecodeError
from p2pcity.sync.sources import Sources
from p2pcity.wire import block
from p2pcity.wire.sync import EntriesAnswer, EntriesQuery


class Feeding(Sources):
    """Asks one voter after the other, and checks that what they give belongs together."""

    def __init__(self) -> None:
        super().__init__()
        self._head: tuple[int, bytes] | None = None

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
