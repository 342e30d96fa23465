"""Whatever bytes and messages come, decode raises DecodeError only and step raises nothing."""

from contextlib import suppress
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from p2pcity.errors import DecodeError
from p2pcity.raft import Role
from p2pcity.wire import raft
from p2pcity.wire.raft import Entry, Message
from tests.raft.cluster import Cluster
from tests.vectors_raft import MESSAGES

NUMBER = st.one_of(st.integers(0, 6), st.sampled_from([2**31, 2**62, 2**63 - 1, 2**63, 2**64 - 1]))
ENTRY = st.builds(Entry, NUMBER, NUMBER, st.binary(max_size=4))


@st.composite
def appends(draw: st.DrawFn) -> raft.Append:
    """Mostly with consecutive indexes, so that many get past the first check."""
    previous = draw(NUMBER)
    terms = draw(st.lists(NUMBER, max_size=4))
    if draw(st.booleans()):
        terms.sort()
    entries = tuple(
        Entry(term, index, b"x") for index, term in enumerate(terms, start=previous + 1)
    )
    return raft.Append(draw(NUMBER), previous, draw(NUMBER), draw(NUMBER), entries)


MESSAGE: st.SearchStrategy[Message] = st.one_of(
    appends(),
    st.builds(raft.Append, NUMBER, NUMBER, NUMBER, NUMBER, st.lists(ENTRY, max_size=3).map(tuple)),
    *(
        st.builds(kind, *(NUMBER for _ in range(numbers)), *(st.booleans() for _ in range(flags)))
        for kind, numbers, flags in [
            (raft.VoteRequest, 3, 2),
            (raft.VoteAnswer, 1, 2),
            (raft.Heartbeat, 3, 0),
            (raft.Heartbeat, 4, 0),
            (raft.HeartbeatAnswer, 2, 0),
            (raft.HeartbeatAnswer, 4, 0),
            (raft.CommitNotice, 2, 0),
            (raft.TimeoutNow, 1, 0),
            (raft.ReadRequest, 2, 0),
            (raft.ReadAnswer, 3, 0),
        ]
    ),
    st.builds(raft.AppendAnswer, NUMBER, NUMBER, st.booleans(), NUMBER, NUMBER),
)

ACTION = st.one_of(
    st.tuples(st.sampled_from(["2", "3", "4", "9", "1"]), MESSAGE),
    st.sampled_from(["tick", "ticks", "propose", "read", "campaign", "unreachable"]),
)


@given(st.lists(ACTION, max_size=30), st.booleans())
@settings(max_examples=250)
def test_no_message_stops_a_node(actions: list[object], begins_as_leader: bool) -> None:
    cluster = Cluster(voters=3, learners=1)
    if begins_as_leader:
        cluster.elect("1")
    node = cluster.members["1"].up
    for action in actions:
        if action == "tick" or action == "ticks":
            for _ in range(1 if action == "tick" else 20):
                node.tick()
        elif action == "propose" and node.status().role is Role.LEADER:
            node.propose(b"p")
        elif action == "read" and node.status().leader is not None:
            node.read_index(b"r")
        elif action == "campaign":
            node.campaign()
        elif action == "unreachable":
            node.report_unreachable("2")
        elif isinstance(action, tuple):
            node.step(*action)
        before = node.status()
        _pump(cluster)
        assert node.status().term < 2**63
        assert node.status().commit >= before.commit


def _pump(cluster: Cluster) -> None:
    """As a driver does; the checkers are left out, since these peers lie."""
    member = cluster.members["1"]
    while member.up.has_ready():
        ready = member.up.ready()
        member.disk.save(ready.hard_state, ready.entries, ready.must_sync)
        for _, message in ready.messages:
            raft.encode(message)
        member.applied += ready.committed_entries
        member.up.advance(ready)
        member.up.applied(len(member.applied))


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_decode_raises_decode_error_only(data: bytes) -> None:
    with suppress(DecodeError):
        raft.decode(data)


@given(st.sampled_from(sorted(MESSAGES)), st.integers(0, 2**32))
@settings(max_examples=300)
def test_mutated_messages(name: str, seed: int) -> None:
    random = Random(seed)
    data = bytearray(raft.encode(MESSAGES[name]))
    for _ in range(random.randint(1, 3)):
        data[random.randrange(len(data))] = random.randrange(256)
    with suppress(DecodeError):
        message = raft.decode(bytes(data))
        assert raft.decode(raft.encode(message)) == message


@given(MESSAGE)
@settings(max_examples=300)
def test_round_trip_of_anything(message: Message) -> None:
    first = getattr(message, "previous_index", 0) + 1
    again = raft.decode(raft.encode(message))
    if isinstance(message, raft.Append) and isinstance(again, raft.Append):
        # Indexes do not travel: they follow from the previous one.
        assert [entry.index for entry in again.entries] == list(
            range(first, first + len(message.entries))
        )
        assert raft.encode(again) == raft.encode(message)
    else:
        assert again == message
