"""What the tests of a node's parts share."""

from collections.abc import AsyncIterator

import pytest

from p2pcity.ledger.writer import WriterThread


@pytest.fixture
async def thread() -> AsyncIterator[WriterThread]:
    """A writer's thread that runs as long as the test."""
    made = WriterThread("test", 64)
    yield made
    await made.close()
