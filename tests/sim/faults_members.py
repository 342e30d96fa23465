"""Changes of who orders, in the middle of everything else."""

from collections.abc import Callable
from typing import Final

from p2pcity.wire.change import Operation, Step
from tests.sim.node import Node
from tests.sim.storm import Storm


def _stranger(storm: Storm) -> Node | None:
    """A node that the city does not know: a new one, or one that it removed."""
    strangers = storm.operator.strangers()
    if not strangers or storm.random.random() < 0.3:
        node = storm.cluster.install()
        if node is not None:
            return node
    return storm.random.choice(strangers) if strangers else None


def _propose(storm: Storm, steps: list[Step]) -> None:
    if steps and storm.operator.propose(steps):
        storm.struck()


def _add(storm: Storm) -> None:
    """A node that votes by itself once it has caught up, or one that never does."""
    node = _stranger(storm)
    if node is not None:
        storm.start(node)
        operation: Operation = "observer" if storm.random.random() < 0.2 else "learner"
        _propose(storm, [storm.operator.adding(node, operation)])


def _remove(storm: Storm) -> None:
    leader = storm.cluster.leader()
    known = storm.operator.nodes_in(list(storm.operator.state.nodes))
    node = leader if leader in known and storm.random.random() < 0.4 else None
    _propose(storm, [Step("remove", (node or storm.random.choice(known)).key)])


def _promote(storm: Storm) -> None:
    """By an operator's word, however far it trails."""
    learners = storm.operator.state.sets.learners
    if learners:
        _propose(storm, [Step("voter", storm.random.choice(learners))])


def _demote(storm: Storm) -> None:
    _propose(storm, [Step("learner", storm.random.choice(storm.operator.state.sets.voters))])


def _replace(storm: Storm) -> None:
    """Several at once: some go, some come, some begin or cease to vote."""
    operator, random = storm.operator, storm.random
    state = operator.state
    steps = []
    node = _stranger(storm)
    if node is not None:
        storm.start(node)
        steps.append(operator.adding(node))
    keys = list(state.nodes)
    random.shuffle(keys)
    for key in keys[: random.randint(1, 3)]:
        choices = ["remove"]
        if key in state.sets.voters:
            choices.append("learner")
        elif key in state.sets.learners:
            choices.append("voter")
        steps.append(Step(random.choice(choices), key))  # type: ignore[arg-type]  # of the three
    _propose(storm, steps)


KINDS: Final[dict[str, Callable[[Storm], None]]] = {
    "node added": _add,
    "node removed": _remove,
    "node promoted": _promote,
    "node demoted": _demote,
    "nodes replaced": _replace,
}
