"""What admission remembers of bytes that it judged: bounded, the oldest forgotten first.

Only verdicts that no state can change are remembered. A transaction that was ignored because
of state is judged afresh when it comes again, and a rejected copy is remembered by its bytes
alone: were its id remembered, a garbled copy that runs ahead would censor the true one.
"""

from p2pcity.admission.verdict import Verdict, make_verdict


class Seen:
    """Final verdicts by the SHA-256 of the carried bytes, and the ids of accepted ones."""

    def __init__(self, accepted_max: int, rejected_max: int) -> None:
        self._accepted_max = accepted_max
        self._rejected_max = rejected_max
        self._id_by_digest: dict[bytes, bytes] = {}
        self._digest_by_id: dict[bytes, bytes] = {}
        self._reason_by_digest: dict[bytes, str] = {}

    def verdict(self, digest: bytes) -> Verdict | None:
        """Return the verdict on bytes that were judged finally before, None otherwise."""
        id = self._id_by_digest.get(digest)
        if id is not None:
            return make_verdict("duplicate", id)
        reason = self._reason_by_digest.get(digest)
        return None if reason is None else make_verdict(reason)

    def has_id(self, id: bytes) -> bool:
        """Whether a transaction with this id was accepted."""
        return id in self._digest_by_id

    def accept(self, digest: bytes, id: bytes) -> None:
        """Remember an accepted transaction by its bytes and its id."""
        if len(self._digest_by_id) >= self._accepted_max:
            self.forget(next(iter(self._digest_by_id)))
        self._id_by_digest[digest] = id
        self._digest_by_id[id] = digest

    def reject(self, digest: bytes, reason: str) -> None:
        """Remember bytes that are wrong under any state."""
        if len(self._reason_by_digest) >= self._rejected_max:
            del self._reason_by_digest[next(iter(self._reason_by_digest))]
        self._reason_by_digest[digest] = reason

    def forget(self, id: bytes) -> None:
        """Forget an accepted transaction, so that it can be accepted again."""
        digest = self._digest_by_id.pop(id, None)
        if digest is not None:
            del self._id_by_digest[digest]
