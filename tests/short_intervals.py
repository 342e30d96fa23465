"""Bases every few blocks, so that a test need not make hundreds to prune some."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

_NAME = "BASE_INTERVAL_BLOCKS"


@contextmanager
def short_intervals(blocks: int) -> Iterator[None]:
    """Let a base stand at each multiple of `blocks`, in all of the program, inside of the block."""
    with pytest.MonkeyPatch.context() as patched:
        for name, module in sorted(sys.modules.items()):
            if name.startswith("p2pcity.") and hasattr(module, _NAME):
                patched.setattr(module, _NAME, blocks)
        yield
