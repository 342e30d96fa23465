"""Bugs to be planted on purpose: the test of the tests (`test_planted.py`).

Each is a patch of production code under a name, switched on for as long as a context lasts.
"""

from typing import Final

from tests.planted_case import Planted
from tests.planted_core import CORE
from tests.planted_ordering import ORDERING
from tests.planted_pruning import PRUNING

PLANTED: Final[dict[str, Planted]] = {**CORE, **ORDERING, **PRUNING}
"""Every planted bug by its name."""
