"""What must hold at every moment, whatever the network and the disks do (Raft, figure 3)."""

from p2pcity.raft import RawNode, Role
from p2pcity.wire.raft import Entry
from tests.raft.disk import Disk


class Checkers:
    """Remembers what was seen, and fails on the first contradiction."""

    def __init__(self) -> None:
        self.leaders: dict[int, str] = {}
        self.committed: list[Entry] = []
        self.reads_confirmed = 0
        self._read_floor: dict[bytes, int] = {}

    def see_node(self, node: RawNode, disk: Disk) -> None:
        """Election safety and leader completeness; call after anything a node did."""
        status = node.status()
        if status.role is not Role.LEADER:
            return
        known = self.leaders.get(status.term)
        if known is None:
            self.leaders[status.term] = status.id
            log = node._raft.raft_log
            for entry in self.committed[max(0, log.first_index - 2) :]:
                assert log.term(entry.index) == entry.term, (
                    f"{status.id} leads term {status.term} without committed {entry.index}"
                )
        else:
            assert known == status.id, f"{known} and {status.id} lead term {status.term}"

    def see_applied(self, who: str, entry: Entry) -> None:
        """State machine safety: all nodes apply the same entry at an index."""
        assert entry.index <= len(self.committed) + 1, f"{who} skipped to {entry.index}"
        if entry.index == len(self.committed) + 1:
            self.committed.append(entry)
        known = self.committed[entry.index - 1]
        assert known == entry, f"{who} applied {entry}, others {known}"

    def begin_read(self, context: bytes) -> None:
        """A read must see at least what anybody applied before it began."""
        self._read_floor[context] = len(self.committed)

    def end_read(self, context: bytes, index: int) -> None:
        """The read is current at `index`."""
        floor = self._read_floor[context]
        assert index >= floor, f"stale read {context!r}: {index} below {floor}"
        self.reads_confirmed += 1

    @staticmethod
    def compare_logs(disks: list[Disk]) -> None:
        """Log matching: equal terms at an index mean equal logs up to there."""
        for number, one in enumerate(disks):
            for other in disks[number + 1 :]:
                first = max(one.first_index, other.first_index)
                ours = one.terms()[first - one.first_index :]
                theirs = other.terms()[first - other.first_index :]
                shared = min(len(ours), len(theirs))
                last = next((i for i in range(shared, 0, -1) if ours[i - 1] == theirs[i - 1]), 0)
                if last:
                    whole, end = 2**62, first + last
                    assert one.entries(first, end, whole) == other.entries(first, end, whole)
