"""The scenario file: nodes, load, faults by time, expectations. Pure but for reading it.

    title = "one sentence"
    [network]        orderers = 3; observers = 0
    [settings.X]     name = value: settings of all nodes, as in p2pcity.toml
    [nodes.nodeN.X]  name = value: settings of one node
    [load]           lasts = "30s" (required); writers = 6; batch = 16; rate = 200
    [[fault]]        kind, at, lasts (required), on, by, way, until
    [expect]         acknowledged_min, acknowledged_during_faults_min, longest_gap_max,
                     ready_again_max, logged = ["event"]

Every wrong or unknown key is a ConfigError that names file, key and remedy.
"""

import difflib
import random
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from p2pcity.cli.chaos.plan import NEMESES, OPERATIONS, WAYS, Strike, Trial, node_names
from p2pcity.cli.duration import read_seconds
from p2pcity.errors import ConfigError
from p2pcity.node.config_reading import check_settings

KINDS: Final = {**NEMESES, **OPERATIONS}
"""Every kind of fault and what it does."""
FAULTS_MAX: Final = 50
_LASTS_MAX_S: Final = 3600.0
_SETTABLE: Final = ("raft", "mempool", "admission", "ledger")
"""Sections whose settings do not belong to the network that is made."""
_TOP: Final = ("title", "network", "settings", "nodes", "load", "fault", "expect")
_FAULT: Final = ("kind", "at", "lasts", "on", "by", "way", "until")
_EXPECT: Final = (
    "acknowledged_min",
    "acknowledged_during_faults_min",
    "longest_gap_max",
    "ready_again_max",
    "logged",
)
_WORDS: Final = ("leader", "follower", "observer", "any", "all")
# What these kinds strike; the others strike as many nodes as one likes.
_LEADER_ONLY: Final = ("transfer",)
_ALL_ONLY: Final = ("delay",)
_ONE_ONLY: Final = ("flap", "reset", "half-open", "members", "replace", "transfer")
_VOTERS_ONLY: Final = ("members", "replace", "transfer")
# By how much: the least and the most.
_BY_S: Final[dict[str, tuple[float, float]]] = {
    "delay": (0.001, 10.0),
    "slow-disk": (0.001, 10.0),
    "clock": (1.0, 3600.0),
}
_EITHER_WAY: Final = ("clock",)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault, and on whom the file says that it strikes."""

    on: str
    strike: Strike


@dataclass(frozen=True, slots=True)
class Expect:
    """What must hold besides what must always hold; None and () ask for nothing.

    A gap is the longest time without an acknowledgement from the first fault on; nodes are ready
    again so long after the last fault's end. `logged` are events that some node's log must have.
    """

    acknowledged_min: int | None = None
    acknowledged_during_faults_min: int | None = None
    longest_gap_max_s: float | None = None
    ready_again_max_s: float | None = None
    logged: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario file, checked. The trial's plan has no chances yet."""

    file: Path
    title: str
    faults: tuple[Fault, ...]
    expect: Expect
    _trial: Trial

    def trial(self, seed: int) -> Trial:
        """Return what is to be run: the seed draws what the file leaves open."""
        chance = random.Random(f"p2pcity scenario {seed}")
        plan = [replace(fault.strike, chance=chance.random()) for fault in self.faults]
        return replace(self._trial, seed=seed, plan=plan)


class _Table:
    """One table of the file: takes its values, and refuses what is wrong."""

    def __init__(self, where: str, body: Any, known: Iterable[str]) -> None:
        self.where = where
        if not isinstance(body, dict):
            raise ConfigError(f"{where} is no table", remedy="Write its keys below [NAME].")
        self.body: dict[str, Any] = body
        known = list(known)
        for name in body:
            if name not in known:
                raise ConfigError(f"{where}: key {name} is unknown", remedy=_nearest(name, known))

    def wrong(self, name: str, remedy: str) -> ConfigError:
        """Return the error for a value that is not what it should be."""
        if name not in self.body:
            return ConfigError(f"{self.where}: {name} is missing", remedy=remedy)
        return ConfigError(f"{self.where}: {name} is {self.body[name]!r}", remedy=remedy)

    def whole(self, name: str, low: int, high: int, default: int | None) -> int | None:
        """Return a whole number in these bounds."""
        if name not in self.body:
            return default
        value = self.body[name]
        if type(value) is not int or not low <= value <= high:
            raise self.wrong(name, f"Use a whole number from {low:,} to {high:,}.")
        return value

    def seconds(self, name: str, low: float, high: float, *, has_sign: bool = False) -> float:
        """Return a length of time in seconds; it must be there."""
        value = self.body.get(name)
        sign, text = "", value if isinstance(value, str) else ""
        if has_sign and text[:1] in ("-", "+"):
            sign, text = text[0], text[1:]
        found = read_seconds(text)
        if found is None or not text[-1].isalpha() or not low <= found <= high:
            signed = ", perhaps with a - in front" if has_sign else ""
            raise self.wrong(
                name,
                f'Write a length of time from {low:g} to {high:g} s with its unit{signed}: "500ms",'
                ' "10s" or "1m".',
            )
        return -found if sign == "-" else found

    def text(self, name: str, choices: Iterable[str] | None = None) -> str:
        """Return a text, of these choices if there are any; it must be there."""
        value = self.body.get(name)
        if not isinstance(value, str) or not value.strip() or "\n" in value:
            raise self.wrong(name, "Write one line of text.")
        if choices is not None and value not in choices:
            raise self.wrong(name, _nearest(value, list(choices)))
        return value


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1, cutoff=0.6)
    return f"Did you mean {near[0]}?" if near else f"Use one of {', '.join(known)}."


def read(file: Path) -> Scenario:
    """Return the scenario of a file; ConfigError for whatever is wrong in it."""
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{file}: {error.strerror}", remedy="Name a scenario file, as in testnet/scenarios/."
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: it is not UTF-8", remedy="Save it as UTF-8 text.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: {error}", remedy="Correct the TOML at that place.") from None
    return parse(file, document)


def parse(file: Path, document: Mapping[str, Any]) -> Scenario:
    """Return the scenario that a file's document describes; ConfigError."""
    top = _Table(str(file), dict(document), _TOP)
    title = top.text("title")
    network = _Table(f"{file}: [network]", top.body.get("network", {}), ("orderers", "observers"))
    orderers = network.whole("orderers", 3, 7, 3) or 0
    observers = network.whole("observers", 0, 5, 0) or 0
    load = _Table(
        f"{file}: [load]", top.body.get("load", {}), ("lasts", "writers", "batch", "rate")
    )
    lasts_s = load.seconds("lasts", 1.0, _LASTS_MAX_S)
    listed = top.body.get("fault", [])
    if not isinstance(listed, list) or len(listed) > FAULTS_MAX:
        raise ConfigError(
            f"{file}: fault is no list of at most {FAULTS_MAX}",
            remedy="Write [[fault]] above the keys of each.",
        )
    spares = sum(isinstance(body, dict) and body.get("kind") == "replace" for body in listed)
    trial = Trial(
        seed=0,
        plan=(),
        names=(),
        orderers=orderers,
        observers=observers,
        spares=spares,
        writers=load.whole("writers", 1, 64, 6) or 0,
        batch=load.whole("batch", 1, 256, 16) or 0,
        # With less, too few are acknowledged before the first fault for a run to show something.
        rate=load.whole("rate", 5, 100_000, None) or 0,
        lasts_s=lasts_s,
    )
    faults = tuple(
        _fault(f"{file}: fault {number}", body, trial) for number, body in enumerate(listed, 1)
    )
    settings, own = _settings(file, top, trial)
    names = tuple(dict.fromkeys(fault.strike.nemesis for fault in faults))
    trial = replace(trial, names=names, settings=settings, own_settings=own)
    return Scenario(file, title, faults, _expect(file, top), trial)


def _fault(where: str, body: Any, trial: Trial) -> Fault:
    table = _Table(where, body, _FAULT)
    kind = table.text("kind", KINDS)
    table.where = f"{where} ({kind})"
    at_s = table.seconds("at", 0.0, _LASTS_MAX_S)
    lasts_s = table.seconds("lasts", 0.1, _LASTS_MAX_S)
    until = table.text("until") if "until" in table.body else ""
    if at_s + (0 if until else lasts_s) > trial.lasts_s:
        raise ConfigError(
            f"{table.where} ends {at_s + lasts_s:g} s after the start, the load after "
            f"{trial.lasts_s:g} s",
            remedy="Make load.lasts longer.",
        )
    on, target, size = _on(table, kind, trial)
    by_s = None
    if "by" in table.body:
        if kind not in _BY_S:
            raise table.wrong("by", f"Leave it out: only {', '.join(_BY_S)} have it.")
        by_s = table.seconds("by", *_BY_S[kind], has_sign=kind in _EITHER_WAY)
    way = ""
    if "way" in table.body:
        if kind != "one-way":
            raise table.wrong("way", "Leave it out: only one-way has it.")
        way = table.text("way", WAYS)
    strike = Strike(kind, at_s, lasts_s, target, 0.0, size, by_s, way, until)
    return Fault(on, strike)


def _on(table: _Table, kind: str, trial: Trial) -> tuple[str, str, int]:
    """On whom: as the file says it, which nodes these can be, and how many."""
    total = trial.orderers + trial.observers
    default = "leader" if kind in _LEADER_ONLY else "all" if kind in _ALL_ONLY else "any"
    on = table.body.get("on", "follower" if default == "any" and kind in _VOTERS_ONLY else default)
    if kind in (*_LEADER_ONLY, *_ALL_ONLY) and on != default:
        raise table.wrong("on", f'Leave it out: it is always "{default}".')
    if type(on) is int:
        most = 1 if kind in _ONE_ONLY else total
        if not 1 <= on <= most or kind in _VOTERS_ONLY:
            raise table.wrong("on", _who(kind, trial))
        return str(on), "any", on
    known = [name for name in (*_WORDS, *trial.nodes) if _is_open(name, kind, trial)]
    if on not in known:
        near = difflib.get_close_matches(str(on), known, 1, cutoff=0.6)
        raise table.wrong("on", f"Did you mean {near[0]}?" if near else _who(kind, trial))
    return (on, "any", total) if on == "all" else (on, on, 1)


def _is_open(name: str, kind: str, trial: Trial) -> bool:
    """Whether a fault of this kind can be on whom this name means."""
    if name == "all":
        return kind not in _ONE_ONLY
    if name == "observer":
        return trial.observers > 0 and kind not in _VOTERS_ONLY
    if kind not in _VOTERS_ONLY or name in ("leader", "follower"):
        return True
    first = trial.orderers + trial.observers
    return name in trial.nodes[: trial.orderers] + trial.nodes[first:]


def _who(kind: str, trial: Trial) -> str:
    known = [name for name in (*_WORDS, *trial.nodes) if _is_open(name, kind, trial)]
    is_one = kind in _ONE_ONLY
    number = "" if is_one else f", or a number up to {trial.orderers + trial.observers}"
    return f"Use one of {', '.join(known)}{number}."


def _settings(
    file: Path, top: _Table, trial: Trial
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The settings of all nodes and of single ones."""
    names = trial.nodes
    common = _flat(f"{file}: [settings", top.body.get("settings", {}))
    check_settings(common, f"{file}: [settings]")
    nodes = _Table(f"{file}: [nodes]", top.body.get("nodes", {}), names)
    own: dict[str, dict[str, Any]] = {}
    for name, body in nodes.body.items():
        own[name] = _flat(f"{file}: [nodes.{name}", body)
        check_settings({**common, **own[name]}, f"{file}: [nodes.{name}]")
    keepers = [
        name
        for name in node_names(trial.orderers + trial.observers)
        if not {**common, **own.get(name, {})}.get("ledger.keep_blocks", 0)
    ]
    if not keepers:
        raise ConfigError(
            f"{file}: ledger.keep_blocks lets every node drop blocks, and nothing is left to hold "
            "the history against",
            remedy=f"Let one keep all: [nodes.{names[0]}.ledger] keep_blocks = 0.",
        )
    return common, own


def _flat(where: str, body: Any) -> dict[str, Any]:
    sections = _Table(f"{where}]", body, _SETTABLE)
    found = {}
    for section, values in sections.body.items():
        if not isinstance(values, dict):
            raise ConfigError(
                f"{where}]: {section} is no table", remedy=f"Write {where}.{section}]."
            )
        found.update({f"{section}.{name}": value for name, value in values.items()})
    return found


def _expect(file: Path, top: _Table) -> Expect:
    table = _Table(f"{file}: [expect]", top.body.get("expect", {}), _EXPECT)
    logged = table.body.get("logged", [])
    if not isinstance(logged, list) or not all(isinstance(x, str) and x for x in logged):
        raise table.wrong("logged", 'Write a list of events of the log: ["base_installed"].')
    times: dict[str, float | None] = {
        name: table.seconds(name, 0.1, _LASTS_MAX_S) if name in table.body else None
        for name in ("longest_gap_max", "ready_again_max")
    }
    return Expect(
        table.whole("acknowledged_min", 1, 1_000_000_000, None),
        table.whole("acknowledged_during_faults_min", 1, 1_000_000_000, None),
        times["longest_gap_max"],
        times["ready_again_max"],
        tuple(logged),
    )
