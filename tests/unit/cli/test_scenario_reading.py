"""Scenario files: what they may say, and the error for whatever else they say."""

import tomllib
from pathlib import Path
from typing import Any, Final

import pytest

from p2pcity.cli.chaos import nemeses, operations
from p2pcity.cli.scenario.reading import FAULTS_MAX, KINDS, Scenario, parse, read
from p2pcity.errors import ConfigError

FILE: Final = Path("city.toml")
HEAD: Final = 'title = "T"\n[load]\nlasts = "20s"\n'
FAULT: Final = '[[fault]]\nkind = "kill"\nat = "2s"\nlasts = "3s"\n'
SHIPPED: Final = sorted((Path(__file__).parents[3] / "testnet" / "scenarios").glob("*.toml"))


def parsed(text: str) -> Scenario:
    return parse(FILE, tomllib.loads(text))


def test_every_kind_has_its_act() -> None:
    assert set(KINDS) == {*nemeses.ACTS, *operations.ACTS}


def test_defaults() -> None:
    scenario = parsed(HEAD)
    trial = scenario.trial(1)
    assert (scenario.title, scenario.faults, trial.names) == ("T", (), ())
    assert (trial.orderers, trial.observers, trial.spares) == (3, 0, 0)
    assert (trial.writers, trial.batch, trial.rate, trial.lasts_s) == (6, 16, 0, 20.0)
    assert scenario.expect.acknowledged_min is None
    assert scenario.expect.logged == ()


def test_what_an_event_ends_may_last_longer_than_the_load() -> None:
    [fault] = parsed(HEAD + FAULT.replace("3s", "1m") + 'until = "pruned"\n').faults
    assert (fault.strike.lasts_s, fault.strike.until) == (60, "pruned")


def test_everything_that_a_file_may_say() -> None:
    scenario = parsed(
        """
        title = "All of it"
        [network]
        orderers = 5
        observers = 1
        [settings.ledger]
        keep_blocks = 256
        [nodes.node6.ledger]
        keep_blocks = 0
        [load]
        lasts = "1m"
        writers = 2
        batch = 1
        rate = 50
        [[fault]]
        kind = "slow-disk"
        on = "node2"
        by = "100ms"
        at = "0s"
        lasts = "500ms"
        [[fault]]
        kind = "one-way"
        way = "deaf"
        on = "observer"
        at = "1.5s"
        lasts = "2s"
        [[fault]]
        kind = "replace"
        at = "2s"
        lasts = "30s"
        until = "pruned"
        [expect]
        acknowledged_min = 10
        acknowledged_during_faults_min = 5
        longest_gap_max = "3s"
        ready_again_max = "1m"
        logged = ["pruned"]
        """
    )
    trial = scenario.trial(1)
    assert (trial.orderers, trial.observers, trial.spares) == (5, 1, 1)
    assert trial.nodes[-1] == "node7"
    assert trial.settings == {"ledger.keep_blocks": 256}
    assert trial.own_settings == {"node6": {"ledger.keep_blocks": 0}}
    assert (trial.writers, trial.batch, trial.rate, trial.lasts_s) == (2, 1, 50, 60.0)
    assert trial.names == ("slow-disk", "one-way", "replace")
    slow, deaf, new = trial.plan
    assert (slow.target, slow.size, slow.by_s, slow.at_s, slow.lasts_s) == ("node2", 1, 0.1, 0, 0.5)
    assert (deaf.target, deaf.size, deaf.way, deaf.at_s) == ("observer", 1, "deaf", 1.5)
    assert (new.target, new.size, new.until) == ("follower", 1, "pruned")
    assert not slow.until
    expect = scenario.expect
    assert (expect.acknowledged_min, expect.acknowledged_during_faults_min) == (10, 5)
    assert (expect.longest_gap_max_s, expect.ready_again_max_s) == (3.0, 60.0)
    assert expect.logged == ("pruned",)


def test_the_seed_draws_what_is_left_open() -> None:
    scenario = parsed(HEAD + FAULT)
    assert scenario.trial(4).plan == scenario.trial(4).plan
    assert scenario.trial(4).plan != scenario.trial(5).plan


@pytest.mark.parametrize(
    ("kind", "on", "expected"),
    [
        ("kill", None, ("any", "any", 1)),
        ("kill", '"leader"', ("leader", "leader", 1)),
        ("kill", '"follower"', ("follower", "follower", 1)),
        ("kill", '"all"', ("all", "any", 3)),
        ("kill", "2", ("2", "any", 2)),
        ("kill", '"node3"', ("node3", "node3", 1)),
        ("delay", None, ("all", "any", 3)),
        ("transfer", None, ("leader", "leader", 1)),
        ("members", None, ("follower", "follower", 1)),
        ("reset", "1", ("1", "any", 1)),
    ],
)
def test_on_whom(kind: str, on: str | None, expected: tuple[str, str, int]) -> None:
    line = "" if on is None else f"on = {on}\n"
    [fault] = parsed(HEAD + FAULT.replace("kill", kind) + line).faults
    assert (fault.on, fault.strike.target, fault.strike.size) == expected


@pytest.mark.parametrize(("by", "seconds"), [("7s", 7.0), ("-10m", -600.0), ("+2s", 2.0)])
def test_a_clock_goes_either_way(by: str, seconds: float) -> None:
    [fault] = parsed(HEAD + FAULT.replace("kill", "clock") + f'by = "{by}"\n').faults
    assert fault.strike.by_s == seconds


BAD: Final[dict[str, tuple[str, str, str]]] = {
    # What the file says, what the error names, and what the remedy names.
    "no title": ('[load]\nlasts = "2s"\n', "title is missing", "one line of text"),
    "an unknown table": (HEAD + "[lod]\n", "key lod is unknown", "Did you mean load?"),
    "an unknown key": (HEAD + "batches = 3\n", "[load]: key batches", "Did you mean batch?"),
    "no load": ('title = "T"\n', "[load]: lasts is missing", "with its unit"),
    "too many nodes": (HEAD + "[network]\norderers = 9\n", "orderers is 9", "from 3 to 7"),
    "no number": (HEAD + "[network]\norderers = true\n", "orderers is True", "whole number"),
    "no table": ('network = 3\ntitle = "T"\n', "[network] is no table", "below [NAME]"),
    "no unit": (HEAD.replace("20s", "20"), "lasts is '20'", "with its unit"),
    "an unknown unit": (HEAD.replace("20s", "20h"), "lasts is '20h'", '"500ms", "10s" or "1m"'),
    "no text": (HEAD.replace('"20s"', "20"), "[load]: lasts is 20", "with its unit"),
    "too long": (HEAD.replace("20s", "61m"), "lasts is '61m'", "to 3600 s"),
    "an unknown kind": (
        HEAD + FAULT.replace("kill", "kil"),
        "fault 1: kind is 'kil'",
        "Did you mean kill?",
    ),
    "another kind": (HEAD + FAULT.replace("kill", "zzz"), "kind is 'zzz'", "one of kill, term"),
    "no kind": (HEAD + '[[fault]]\nat = "1s"\n', "kind is missing", "one line of text"),
    "an unknown key of a fault": (
        HEAD + FAULT + 'last = "1s"\n',
        "fault 1: key last is unknown",
        "Did you mean lasts?",
    ),
    "the second fault": (HEAD + FAULT + FAULT + 'on = "ledaer"\n', "fault 2 (kill)", "leader?"),
    "too late": (
        HEAD + FAULT.replace("2s", "18s"),
        "fault 1 (kill) ends 21 s after the start, the load after 20 s",
        "load.lasts",
    ),
    "no such node": (HEAD + FAULT + 'on = "zzzz"\n', "on is 'zzzz'", "node3, or a number up"),
    "too many": (HEAD + FAULT + "on = 4\n", "on is 4", "a number up to 3"),
    "no observer": (HEAD + FAULT + 'on = "observer"\n', "on is 'observer'", "leader, follower"),
    "one only": (HEAD + FAULT.replace("kill", "flap") + 'on = "all"\n', "(flap): on", "leader"),
    "all only": (HEAD + FAULT.replace("kill", "delay") + "on = 1\n", "on is 1", 'always "all"'),
    "who leads": (
        HEAD + FAULT.replace("kill", "transfer") + 'on = "node1"\n',
        "on is 'node1'",
        'always "leader"',
    ),
    "voters only": (
        HEAD + FAULT.replace("kill", "replace") + "on = 1\n",
        "(replace): on is 1",
        "leader, follower, node1",
    ),
    "by nothing": (HEAD + FAULT + 'by = "1s"\n', "(kill): by", "only delay, slow-disk, clock"),
    "by too much": (
        HEAD + FAULT.replace("kill", "delay") + 'by = "11s"\n',
        "by is '11s'",
        "from 0.001 to 10 s",
    ),
    "by less than nothing": (
        HEAD + FAULT.replace("kill", "delay") + 'by = "-1s"\n',
        "by is '-1s'",
        "from 0.001 to 10 s",
    ),
    "no way": (HEAD + FAULT + 'way = "deaf"\n', "(kill): way", "only one-way"),
    "another way": (
        HEAD + FAULT.replace("kill", "one-way") + 'way = "dead"\n',
        "way is 'dead'",
        "Did you mean deaf?",
    ),
    "no list": (HEAD + '[fault]\nkind = "kill"\n', "fault is no list", "[[fault]]"),
    "too many faults": (HEAD + FAULT * (FAULTS_MAX + 1), "at most 50", "[[fault]]"),
    "an unknown section": (
        HEAD + "[settings.ledgr]\nkeep_blocks = 256\n",
        "[settings]: key ledgr",
        "Did you mean ledger?",
    ),
    "the network's own": (
        HEAD + '[settings.net]\nlisten = ["/ip4/127.0.0.1/tcp/1"]\n',
        "[settings]: key net",
        "raft, mempool",
    ),
    "an unknown setting": (
        HEAD + "[settings.ledger]\nkeep_block = 256\n",
        "[settings]: setting ledger.keep_block",
        "ledger.keep_blocks",
    ),
    "a wrong setting": (
        HEAD + "[settings.ledger]\nkeep_blocks = 12\n",
        "[settings]: ledger.keep_blocks is 12",
        "at least 256",
    ),
    "a node that is not there": (HEAD + "[nodes.node4.raft]\n", "key node4", "node3?"),
    "a wrong setting of a node": (
        HEAD + '[nodes.node1.raft]\npreset = "lann"\n',
        "[nodes.node1]: raft.preset is 'lann'",
        "lan",
    ),
    "a setting without its section": (HEAD + "[settings]\nraft = 3\n", "raft is no", ".raft]"),
    "nobody keeps all": (
        HEAD + "[settings.ledger]\nkeep_blocks = 256\n",
        "nothing is left",
        "[nodes.node1.ledger] keep_blocks = 0",
    ),
    "an unknown expectation": (
        HEAD + "[expect]\nacknowleged_min = 3\n",
        "[expect]: key acknowleged_min",
        "Did you mean acknowledged_min?",
    ),
    "expecting nothing": (HEAD + "[expect]\nacknowledged_min = 0\n", "is 0", "whole number"),
    "an unknown unit of an expectation": (
        HEAD + '[expect]\nlongest_gap_max = "3 days"\n',
        "longest_gap_max is '3 days'",
        "with its unit",
    ),
    "until nothing": (HEAD + FAULT + 'until = ""\n', "(kill): until is ''", "one line of text"),
    "no list of events": (HEAD + '[expect]\nlogged = "x"\n', "logged is 'x'", "a list"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_named_with_its_remedy(name: str) -> None:
    text, says, remedy = BAD[name]
    with pytest.raises(ConfigError) as caught:
        parsed(text)
    assert str(caught.value).startswith("city.toml: ")
    assert says in str(caught.value)
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    ("data", "says"),
    [(None, "No such file"), (b"title = \xff", "not UTF-8"), (b"title = ", "Invalid value")],
)
def test_a_file_that_is_none(tmp_path: Path, data: bytes | None, says: str) -> None:
    file = tmp_path / "city.toml"
    if data is not None:
        file.write_bytes(data)
    with pytest.raises(ConfigError, match=says) as caught:
        read(file)
    assert str(file) in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize("file", SHIPPED, ids=[file.stem for file in SHIPPED])
def test_a_shipped_file(file: Path) -> None:
    scenario = read(file)
    assert scenario.title.endswith(".")
    assert scenario.faults
    assert scenario.trial(1).lasts_s <= 60


def test_the_readme_names_every_shipped_file() -> None:
    text = (SHIPPED[0].parents[2] / "README.md").read_text(encoding="utf-8")
    assert len(SHIPPED) >= 6
    assert not [file.stem for file in SHIPPED if f"`{file.stem}`" not in text]


def test_the_readme_names_every_key() -> None:
    text = (SHIPPED[0].parents[2] / "README.md").read_text(encoding="utf-8")
    names: list[Any] = ["longest_gap_max", "ready_again_max", "acknowledged_min", "logged"]
    names += [
        "acknowledged_during_faults_min",
        "writers",
        "batch",
        "rate",
        "by",
        "way",
        "on",
        "until",
    ]
    assert not [name for name in names if f"`{name}`" not in text]
