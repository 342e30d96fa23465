"""A base from others: which one a majority of voters names, and whether what comes is right.

Nobody is believed alone. The digest counts that more than half of the voters give; the head has
to have it, and the head's marks judge the records, interval by interval (protocol/07-base.md,
"Fetching").
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from p2pcity.errors import DecodeError, Unavailable
from p2pcity.wire import base as base_wire
from p2pcity.wire.base import RECORD_BYTES, RECORDS_PER_BLOCK_MAX, BaseHead, IntervalChain
from p2pcity.wire.limits import BASE_INTERVAL_BLOCKS, BASE_RECORDS_MAX
from p2pcity.wire.sync import (
    BASE_PART_BYTES_MAX,
    BaseAnswer,
    BaseHeadAnswer,
    BaseHeadQuery,
    BaseQuery,
    BaseRecordsAnswer,
    BaseRecordsQuery,
)

HEIGHTS_MAX: Final = 8
"""So many of the highest bases that are offered are asked about: liars may offer any."""

Question = BaseHeadQuery | BaseRecordsQuery
Part = BaseHeadAnswer | BaseRecordsAnswer


@dataclass(frozen=True, slots=True)
class Agreed:
    """A base that a majority of voters names.

    `sources` have it, or a later one with the same records, on their disks; `holders` this one:
    each with the bytes of its head as it said itself, by which only its own answers are measured.
    """

    height: int
    digest: bytes
    holders: Mapping[str, int]
    sources: frozenset[str]


class Agreement:
    """One round of asking: what each peer offers, and what the voters name.

    `voters` are the voter sets in force, two in a joint state; this node is in them if it votes,
    and never names anything itself. Only bases above the height `above` count.
    """

    def __init__(self, voters: Sequence[Collection[str]], above: int) -> None:
        self._voters = [frozenset(names) for names in voters if names]
        self._above = above
        self._offers: dict[str, BaseAnswer] = {}
        self._named: dict[tuple[int, bytes], set[str]] = {}

    def offered(self, peer: str, answer: BaseAnswer) -> None:
        """Take the answer to a question without a height; DecodeError when it can't be true."""
        if answer.digest is not None:
            _check_offer(answer)
            self._named.setdefault((answer.height, answer.digest), set()).add(peer)
        self._offers[peer] = answer

    def questions(self) -> list[BaseQuery]:
        """Return what every voter is to be asked: the highest bases that are offered."""
        heights = {
            offer.height
            for offer in self._offers.values()
            if offer.digest is not None and offer.height > self._above
        }
        return [BaseQuery(height) for height in sorted(heights, reverse=True)[:HEIGHTS_MAX]]

    def named(self, peer: str, question: BaseQuery, answer: BaseAnswer) -> None:
        """Take a voter's answer to one of `questions`; DecodeError when it does not fit."""
        if answer.height != question.height:
            raise DecodeError("the answer is about another base")
        if answer.digest is not None:
            self._named.setdefault((answer.height, answer.digest), set()).add(peer)

    def first_kept(self, ahead: Collection[str]) -> int | None:
        """The oldest entry that any voter of `ahead` says to keep; None when none answered.

        `ahead` have what is lacking here: who lacks it too keeps nothing of it, wherever its log
        begins.
        """
        voters = frozenset[str]().union(*self._voters).intersection(ahead)
        return min((x.first for peer, x in self._offers.items() if peer in voters), default=None)

    def agreed(self) -> Agreed | None:
        """Return the highest base that a majority of each voter set names and somebody holds."""
        for height, digest in sorted(self._named, reverse=True):
            if height <= self._above or not self._is_majority(self._named[height, digest]):
                continue
            holders = {
                peer: offer.size
                for peer, offer in self._offers.items()
                if (offer.height, offer.digest) == (height, digest)
            }
            if holders:
                sources = [
                    peer
                    for peer, offer in self._offers.items()
                    if offer.digest is not None and offer.height >= height
                ]
                return Agreed(height, digest, holders, frozenset(sources))
        return None

    def _is_majority(self, names: set[str]) -> bool:
        return bool(self._voters) and all(
            2 * len(voters & names) > len(voters) for voters in self._voters
        )


def _check_offer(offer: BaseAnswer) -> None:
    if offer.height == 0 or offer.height % BASE_INTERVAL_BLOCKS:
        raise DecodeError(f"a base at height {offer.height} is offered")
    if not 0 < offer.size <= base_wire.head_bytes_max(offer.height):
        raise DecodeError(f"a head of {offer.size} bytes is offered", reason="size")
    if offer.records > offer.height * RECORDS_PER_BLOCK_MAX:
        raise DecodeError(f"a base of {offer.records} records is offered", reason="size")


class HeadFetch:
    """The head of an agreed base, part by part from one peer; another peer begins anew."""

    def __init__(
        self,
        agreed: Agreed,
        network: bytes,
        peer: str,
        part_bytes_max: int = BASE_PART_BYTES_MAX,
    ) -> None:
        self._agreed = agreed
        self._size = agreed.holders[peer]
        self._network = network
        self._part_bytes_max = part_bytes_max
        self._parts = bytearray()

    def question(self) -> BaseHeadQuery:
        """Return what to ask next."""
        return BaseHeadQuery(self._agreed.height, len(self._parts))

    def take(self, question: Question, answer: Part) -> bytes | None:
        """Return the head's bytes once they are all here, None before.

        Raises DecodeError when the peer gave something wrong, and Unavailable when it has
        that base no more.
        """
        if not isinstance(answer, BaseHeadAnswer) or question != BaseHeadQuery(
            answer.height, answer.offset
        ):
            raise DecodeError("the answer is about another part")
        if answer.data is None:
            raise Unavailable("the peer has this base no more")
        left = self._size - len(self._parts)
        if len(answer.data) > left:
            raise DecodeError("the head is longer than it was said to be", reason="size")
        # Byte by byte, each in time, a liar would keep the asker for ever.
        wanted = min(left, self._part_bytes_max)
        if len(answer.data) != wanted:
            what = f"a part of {len(answer.data)} bytes came, not of {wanted}"
            raise DecodeError(what, reason="size")
        self._parts += answer.data
        if len(self._parts) < self._size:
            return None
        data = bytes(self._parts)
        if base_wire.digest_head(data) != self._agreed.digest:
            raise DecodeError("the head has not the digest that was agreed on")
        head = base_wire.decode_head(data)
        if (head.height, head.network) != (self._agreed.height, self._network):
            raise DecodeError("the head is of another base or network")
        return data


class IntervalFetch:
    """The records of one interval (0-based) of a base, from one peer; another begins anew."""

    def __init__(self, head: BaseHead, interval: int, count_max: int = BASE_RECORDS_MAX) -> None:
        before, after = head.mark(interval), head.mark(interval + 1)
        self._offset = before.records
        self._end = after.records
        self._expected = after.chain
        self._count_max = count_max
        self._chain = IntervalChain(before.chain, interval * BASE_INTERVAL_BLOCKS)
        self._parts: list[bytes] = []

    @property
    def is_empty(self) -> bool:
        """Whether no record is missing: then nothing is asked."""
        return self._offset == self._end

    def question(self) -> BaseRecordsQuery:
        """Return what to ask next."""
        return BaseRecordsQuery(self._offset, min(self._count_max, self._end - self._offset))

    def take(self, question: Question, answer: Part) -> bytes | None:
        """Return all records of the interval once they are here, None before.

        Raises DecodeError when they are not those of the base, and Unavailable.
        """
        if (
            not isinstance(answer, BaseRecordsAnswer)
            or not isinstance(question, BaseRecordsQuery)
            or answer.offset != question.offset
        ):
            raise DecodeError("the answer is about another part")
        count = len(answer.data) // RECORD_BYTES
        if count == 0:
            raise Unavailable("the peer has these records not")
        # All of them exist; one by one, each in time, a liar would keep the asker for ever.
        if count != question.count:
            raise DecodeError(f"{count} records came, {question.count} were asked for")
        self._chain.add(answer.data)
        self._parts.append(answer.data)
        self._offset += count
        return self.finish() if self.is_empty else None

    def finish(self) -> bytes:
        """Return the records, all of which are here; DecodeError when they are wrong."""
        if self._chain.finish() != self._expected:
            raise DecodeError("the records do not fit the mark behind them")
        return b"".join(self._parts)
