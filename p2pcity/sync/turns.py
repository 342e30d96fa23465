"""Whose turn it is, where not all can be asked at once."""

from collections.abc import Sequence


class Turns:
    """Lets names have their turn: new ones first, then whoever had none for longest.

    It keeps each name until it is forgotten; the caller bounds them.
    """

    def __init__(self) -> None:
        # A dictionary keeps its order: whoever has a turn goes to its end.
        self._had: dict[str, None] = {}

    def take(self, names: Sequence[str], count: int) -> list[str]:
        """Return up to `count` of `names`; they have had their turn now."""
        waiting = [name for name in names if name not in self._had]
        waiting += [name for name in self._had if name in names]
        chosen = waiting[:count]
        for name in chosen:
            self.forget(name)
            self._had[name] = None
        return chosen

    def forget(self, name: str) -> None:
        """Take `name` for a new one."""
        self._had.pop(name, None)
