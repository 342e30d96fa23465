"""A plugin for `warm_nodes`: files are rolled and checkpointed so often that tests meet it."""

from p2pcity.ledger import outbox, views_store
from p2pcity.ledger.segment_log import SegmentLog


def install() -> None:
    """Set the bounds of this process."""
    defaults = SegmentLog.open.__func__.__kwdefaults__  # type: ignore[attr-defined]  # a method
    assert "segment_bytes_max" in defaults
    defaults["segment_bytes_max"] = 32 * 1024
    outbox.CHECKPOINT_ROWS = 20  # type: ignore[misc]  # this process's own
    views_store.CHECKPOINT_ROWS = 40  # type: ignore[misc]  # this process's own
