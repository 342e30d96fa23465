"""A plugin for `warm_nodes`: files are rolled and checkpointed so often that tests meet it."""

from pathlib import Path
from typing import Any

from p2pcity.ledger import outbox, views_store
from p2pcity.ledger.segment_log import SegmentLog


def install() -> None:
    """Set the bounds of this process."""
    open_log = SegmentLog.open

    def open_small(directory: Path, **named: Any) -> SegmentLog:
        return open_log(directory, **named | {"segment_bytes_max": 32 * 1024})

    SegmentLog.open = open_small  # type: ignore[method-assign]  # the setting's least is 1 MiB
    outbox.CHECKPOINT_ROWS = 20  # type: ignore[misc]  # this process's own
    views_store.CHECKPOINT_ROWS = 40  # type: ignore[misc]  # this process's own
