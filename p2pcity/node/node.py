"""The daemon: what `p2pcity run` calls.

    stores -> views catch up -> network -> ordering, apply, gossip, ... -> HTTP

A part that fails ends the process: an error of the ledger with its exit code, a bug with its
traceback. What is damaged is mended, and the node begins again in the same process: damaged views
once, without them; a damaged entry of the log once, and then it comes from the other nodes. So it
does when a base was fetched from others, which the start moves into place.
"""

import gc
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
import trio

from p2pcity import __version__
from p2pcity.errors import LedgerError, LocalError, LockedError, P2PCityError
from p2pcity.ledger.segment_recovery import EntryDamaged
from p2pcity.ledger.views_reader import ViewsDamaged
from p2pcity.node import logs
from p2pcity.node.assembly import Parts
from p2pcity.node.base_fetch import BaseComplete
from p2pcity.node.config import Config
from p2pcity.node.descriptors import check_descriptors
from p2pcity.node.identity import load_identity
from p2pcity.node.log_repair import LogRepair
from p2pcity.node.membership import check_place
from p2pcity.node.opening import Stores, open_stores
from p2pcity.node.reloading import Settings, has_hangups_of_a_terminal, ignoring_hangups, reload
from p2pcity.node.supervision import Supervision
from p2pcity.node.surface import Surface
from p2pcity.node.systemd import Notifier
from p2pcity.node.telemetry import open_otlp

_logger = structlog.get_logger("p2pcity.node")
# Objects until a young collection, young ones until a middle one, middle ones until a full one.
_COLLECTOR_THRESHOLDS = (10_000, 20, 20)
_HAND_OVER_S = 2.0
_CLOSE_S = 5.0
_LOGS_CLOSE_S = 2.0
_DAMAGED_MAX = 16
# Under a service manager, ten minutes; without one a directory in use is an error at once.
_LOCK_TRIES = 600
_LOCK_PERIOD_S = 1.0


def main(config: Config, reread: Callable[[], Config] | None = None) -> int:
    """Run the daemon until SIGTERM or SIGINT; its exit code (0; 2; 10 to 14 for the ledger).

    SIGHUP has it call `reread` and take over what can change while it runs.
    """
    stream = logs.configure(level=config.logs.level, format_=config.logs.format)
    supervision = Supervision(Notifier.take())
    try:
        with supervision.watched(), ignoring_hangups():
            return _run_to_exit_code(Settings(config, reread), supervision)
    finally:
        stream.close(_LOGS_CLOSE_S)


def _run_to_exit_code(settings: Settings, supervision: Supervision) -> int:
    begins_anew = had_damaged_views = False
    damaged: set[int | None] = set()
    lock_tries = 0
    while True:
        error = _run_once(settings, supervision, has_damaged_views=begins_anew)
        # For the next beginning alone: one for another reason keeps the views.
        begins_anew = False
        if isinstance(error, ViewsDamaged) and not had_damaged_views:
            # A page went bad after the start had looked: the log has everything. A second time
            # in one process it is the disk.
            _logger.warning("views_rebuilt", reason=str(error))
            begins_anew = had_damaged_views = True
        elif isinstance(error, EntryDamaged) and len(damaged) < _DAMAGED_MAX:
            # Likewise an entry: the others have it. The same one twice is more than bad luck.
            if error.index in damaged:
                return _report(error, supervision)
            damaged.add(error.index)
            _logger.warning("log_damaged", index=error.index, reason=str(error))
        elif isinstance(error, BaseComplete):
            _logger.warning("base_fetched", reason=str(error))
        elif isinstance(error, LockedError) and supervision.is_heard and lock_tries < _LOCK_TRIES:
            # Most likely an earlier life of this unit: a process that waits for its disk can't be
            # killed, and may still write. Nobody would start the node again when it is gone.
            if not lock_tries:
                _logger.warning("lock_waits", reason=str(error), remedy=error.remedy)
            supervision.say(f"waiting: {error}")
            lock_tries += 1
            time.sleep(_LOCK_PERIOD_S)
        else:
            return 0 if error is None else _report(error, supervision)


def _run_once(
    settings: Settings, supervision: Supervision, *, has_damaged_views: bool
) -> P2PCityError | None:
    try:
        trio.run(
            partial(
                run,
                settings.config,
                has_damaged_views=has_damaged_views,
                settings=settings,
                supervision=supervision,
            ),
            strict_exception_groups=True,
        )
    except P2PCityError as error:
        return error
    except BaseExceptionGroup as group:
        known, bugs = group.split(P2PCityError)
        if known is None or (bugs is not None and not known.subgroup(LedgerError)):
            raise
        if bugs is not None:
            # The disk is what stopped the node; what broke on the way out must not hide it.
            _logger.error("failed_while_stopping", exc_info=bugs)
        return _first(known)
    return None


# trio.TaskStatus[Parts]; the stubs that come with libp2p are older than trio and lack it.
TaskStatus = Any


async def run(
    config: Config,
    *,
    has_damaged_views: bool = False,
    settings: Settings | None = None,
    supervision: Supervision | None = None,
    task_status: TaskStatus = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a node until it is cancelled or told to stop; `task_status` is told when it serves.

    Views that an earlier run found damaged (`has_damaged_views`) are made anew. `settings` can be
    read anew by SIGHUP; `supervision` is who hears how the node is.
    """
    begin_s = trio.current_time()
    settings = settings or Settings(config)
    supervision = supervision or Supervision()
    supervision.begin()
    check_descriptors(config)
    identity = load_identity(config)
    stores = await open_stores(
        config.node.data_dir,
        genesis=identity.genesis,
        peer_id=identity.peer_id,
        repair=LogRepair(config, identity, now_ms=_wall_clock_ms).run,
        has_damaged_views=has_damaged_views,
        make_writer=supervision.vitals.make_thread,
        segment_bytes_max=config.ledger.segment_bytes_max,
    )
    opening_ms = round((trio.current_time() - begin_s) * 1000)
    _logger.info("opened", index=stores.raft_log.last_index, duration_ms=opening_ms)
    try:
        otlp = open_otlp(config, identity)
        parts = Parts(config, identity, stores, _wall_clock_ms, now_us=_wall_clock_us, otlp=otlp)
        supervision.vitals.follow(parts.apply)
        supervision.say("starting: applying the log")
        await catch_up(parts)
        parts.join()
        check_place(parts.members, identity, config.node.role)
        async with trio.open_nursery() as nursery:
            surface = Surface(config, parts.service, parts.http)
            life = Life(parts, surface, settings, supervision)
            nursery.start_soon(life.obey_signals, nursery.cancel_scope)
            await start(parts, nursery)
            await nursery.start(surface.run)
            await supervision.ready(parts.status.line())
            nursery.start_soon(supervision.report, parts.status.line)
            _logger.info(
                "ready",
                peer=identity.peer_id,
                place=parts.membership.place(identity.peer_id),
                height=parts.reading.head().height,
                release=__version__,
            )
            _settle_collector()
            task_status.started(parts)
    except BaseException:  # closed, then raised on: what went wrong first is what counts
        with suppress(P2PCityError):
            await _close(stores)
        raise
    await _close(stores)
    _logger.info("stopped", peer=identity.peer_id)


def _settle_collector() -> None:
    """Keep the cyclic garbage collector from stopping the node for long.

    Modules and parts stay to the end: no later collection looks at them. Transactions and blocks
    are freed by their reference counts, so a young collection every 700 objects finds nothing.
    Under load full collections took up to a fifth of the time, and stopped the process for up to
    390 ms: heartbeats came too late.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTOR_THRESHOLDS)


async def _close(stores: Stores) -> None:
    with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLOSE_S):
        await stores.close()


async def catch_up(parts: Parts) -> None:
    """Apply what the log holds committed, before anybody can ask or vote."""
    target = parts.stores.raft_log.hard_state.commit
    behind = target - parts.apply.applied_index
    if behind > 0:
        _logger.info("catching_up", entries=behind)
        await parts.apply.catch_up(target)


async def start(parts: Parts, nursery: trio.Nursery) -> None:
    """Start everything but the HTTP surface; returns once the node takes part."""
    await nursery.start(parts.network.run)
    for loop in (
        parts.ordering.run,
        parts.apply.run,
        parts.outbox.run,
        parts.forwarding.run,
        parts.gossiping.run,
        parts.anti_entropy.run,
        parts.feeding.run,
        parts.base_fetching.run,
        parts.peer_status.run,
        parts.standing.run,
        parts.reads.run,
        parts.expiring.run,
        parts.pruning.run,
        parts.status.disk_growth.run,
        parts.telemetry.run,
        parts.wait_damage,
    ):
        nursery.start_soon(loop)
    await parts.reoffering.load()
    nursery.start_soon(parts.reoffering.run)


@dataclass(frozen=True, slots=True)
class Life:
    """What the signals act on."""

    parts: Parts
    surface: Surface
    settings: Settings
    supervision: Supervision

    async def obey_signals(self, scope: trio.CancelScope) -> None:
        """SIGHUP reloads; the first SIGTERM or SIGINT stops the node, which cancels `scope`."""
        heard = [signal.SIGTERM, signal.SIGINT]
        if not has_hangups_of_a_terminal():
            heard.append(signal.SIGHUP)
        with trio.open_signal_receiver(*heard) as signals:
            async for number in signals:
                if number == signal.SIGHUP:
                    await self._reload()
                    continue
                _logger.info("stopping", signal=signal.Signals(number).name)
                break
        self.supervision.stopping("stopping: handing over")
        await hand_over(self.parts)
        await self.surface.stop()
        scope.cancel()

    async def _reload(self) -> None:
        await self.supervision.reloading()
        reload(self.settings, self.parts.membership, self.surface)
        await self.supervision.ready(self.parts.status.line())


async def hand_over(parts: Parts) -> None:
    """Let another orderer lead before this one stops; waits 2 s for that, at most."""
    if parts.ordering.raw_node.is_leader:
        with trio.move_on_after(_HAND_OVER_S):
            try:
                await parts.service.transfer_leader(None)
            except LocalError as error:
                # Alone, or the others are down: there is nobody to hand over to.
                _logger.info("not_handed_over", reason=str(error))


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


def _wall_clock_us() -> int:
    return time.time_ns() // 1000


def _first(group: BaseExceptionGroup[P2PCityError]) -> P2PCityError:
    """The first error of the group that a new start would not mend, else the first."""
    worse = group.subgroup(lambda error: not isinstance(error, ViewsDamaged))
    error: BaseException = worse or group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, P2PCityError)
    return error


def _report(error: P2PCityError, supervision: Supervision) -> int:
    _logger.critical("stopped", reason=str(error), remedy=error.remedy, exit_code=error.exit_code)
    supervision.failed(error)
    return error.exit_code
