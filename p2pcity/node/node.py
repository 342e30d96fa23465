"""The daemon: what `p2pcity run` calls.

    stores -> views catch up -> network -> ordering, apply, gossip, ... -> HTTP

A part that fails ends the process: an error of the ledger with its exit code, a bug with its
traceback.
"""

import signal
import sys
import time
from functools import partial
from typing import Any

import structlog
import trio

from p2pcity import __version__
from p2pcity.api.config import ApiConfig
from p2pcity.api.server import serve
from p2pcity.errors import LocalError, P2PCityError
from p2pcity.node import logs
from p2pcity.node.assembly import Parts
from p2pcity.node.config import Config
from p2pcity.node.identity import load_identity
from p2pcity.node.opening import open_stores

_logger = structlog.get_logger("p2pcity.node")
# Threads that verify, apply and write hold the interpreter while the event loop, which gave it
# up for a system call, waits to go on. At Python's 5 ms each send could cost as much.
_SWITCH_INTERVAL_S = 0.0005
_HAND_OVER_S = 2.0
_CLOSE_S = 5.0


def main(config: Config) -> int:
    """Run the daemon until SIGTERM or SIGINT; its exit code (0; 2; 10 to 14 for the ledger)."""
    logs.configure(level=config.logs.level, format_=config.logs.format)
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    try:
        trio.run(partial(run, config), strict_exception_groups=True)
    except P2PCityError as error:
        return _report(error)
    except BaseExceptionGroup as group:
        known, bugs = group.split(P2PCityError)
        if known is None or bugs is not None:
            raise
        return _report(_first(known))
    return 0


# trio.TaskStatus[Parts]; the stubs that come with libp2p are older than trio and lack it.
TaskStatus = Any


async def run(config: Config, *, task_status: TaskStatus = trio.TASK_STATUS_IGNORED) -> None:
    """Run a node until it is cancelled or told to stop; `task_status` is told when it serves."""
    identity = load_identity(config)
    stores = await open_stores(
        config.node.data_dir,
        genesis=identity.genesis,
        peer_id=identity.peer_id,
        incarnation=identity.node.incarnation,
    )
    try:
        parts = Parts(config, identity, stores, now_ms=_wall_clock_ms)
        await _catch_up(parts)
        parts.join()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_stop_on_signal, parts, nursery.cancel_scope)
            await _start(parts, nursery)
            _logger.info(
                "ready",
                peer=identity.peer_id,
                role=config.node.role,
                height=parts.reading.head().height,
                release=__version__,
            )
            task_status.started(parts)
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLOSE_S):
            await stores.close()
    _logger.info("stopped", peer=identity.peer_id)


async def _catch_up(parts: Parts) -> None:
    """Apply what the log holds committed, before anybody can ask or vote."""
    target = parts.stores.raft_log.hard_state.commit
    behind = target - parts.apply.applied_index
    if behind > 0:
        _logger.info("catching_up", entries=behind)
        await parts.apply.catch_up(target)


async def _start(parts: Parts, nursery: trio.Nursery) -> None:
    await nursery.start(parts.network.run)
    for loop in (
        parts.ordering.run,
        parts.apply.run,
        parts.outbox.run,
        parts.forwarding.run,
        parts.gossiping.run,
        parts.anti_entropy.run,
        parts.reads.run,
        parts.expire,
    ):
        nursery.start_soon(loop)
    await parts.reload_outbox()
    http = parts.config.http
    api = ApiConfig(
        unix_socket=http.socket,
        bind=http.bind or None,
        tokens_file=http.tokens_file,
        tls_certificate=http.tls_certificate_file,
        tls_key=http.tls_key_file,
        connections_max=http.connections_max,
    )
    await nursery.start(serve, api, parts.service)


async def _stop_on_signal(parts: Parts, scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            _logger.info("stopping", signal=signal.Signals(number).name)
            break
    if parts.ordering.raw_node.is_leader:
        with trio.move_on_after(_HAND_OVER_S):
            try:
                await parts.service.transfer_leader(None)
            except LocalError as error:
                # Alone, or the others are down: there is nobody to hand over to.
                _logger.info("not_handed_over", reason=str(error))
    scope.cancel()


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


def _first(group: BaseExceptionGroup[P2PCityError]) -> P2PCityError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, P2PCityError)
    return error


def _report(error: P2PCityError) -> int:
    _logger.critical("stopped", reason=str(error), remedy=error.remedy, exit_code=error.exit_code)
    return error.exit_code
