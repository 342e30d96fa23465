"""What a planted bug is."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

STORIES: Final = Path(__file__).parent / "raft" / "testdata"


@dataclass(frozen=True, slots=True)
class Planted:
    """One bug: what it is, how it is switched on, and who finds it.

    `story` is the story of the core that is told otherwise while the bug is there; `seeds` is
    within how many seeds of the simulator, from 0 on, one fails (about three times what it took
    when it was measured), with the kinds of fault `kinds` alone where they are named; `scene` is
    a scenario of whole nodes that fails. One of them at least.
    """

    what: str
    plant: Callable[[], AbstractContextManager[Any]]
    seeds: int | None = None
    story: str = ""
    scene: Callable[[], None] | None = None
    kinds: tuple[str, ...] = ()
