"""Alert rules and the dashboard: valid, about metrics that a node has, and firing when they should.

The rules are tried by Prometheus's own tool: on what a node that is well really says no alert may
fire; then single figures of it are changed, and the alert that is meant for that must.
"""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from p2pcity.cli.testnet.compose_file import (
    PROMETHEUS_FILE,
    RULES_DIRECTORY,
    prometheus_text,
)
from tests.metrics_case import (
    names,
    names_used,
    needs_promtool,
    promtool,
    samples,
    scrape_city_of_one,
)

ROOT: Final = Path(__file__).resolve().parent.parent
ALERTS: Final = ROOT / "testnet" / "alerts.yml"
DASHBOARD: Final = ROOT / "testnet" / "grafana-dashboard.json"
_NODE: Final = {"job": "p2pcity", "instance": "water:4711"}
_MINUTES: Final = 100
# Alert -> samples of a well node that are other than they were: constants, or "start+step", a step
# a minute. A sample is named as in the text, without the labels that Prometheus adds.
FAULTS: Final[dict[str, dict[str, str]]] = {
    "P2PCityDown": {"up": "0"},
    "P2PCityNotReady": {'p2pcity_node_not_ready{reason="behind"}': "1"},
    "P2PCityAlarm": {"p2pcity_node_alarms": "2"},
    "P2PCityFewDescriptors": {"p2pcity_process_open_fds": "900", "p2pcity_process_max_fds": "1024"},
    "P2PCityNoLeader": {"p2pcity_raft_has_leader": "0"},
    "P2PCityToleratesNoFailure": {
        "p2pcity_raft_voters": "3",
        "p2pcity_raft_failures_tolerated": "0",
    },
    "P2PCityLeaderChangesOften": {"p2pcity_raft_leader_changes_total": "1+1"},
    "P2PCityNothingCommitted": {"p2pcity_mempool_transactions": "7"},
    "P2PCityCommitSlow": {
        'p2pcity_ordering_commit_duration_seconds_bucket{le="2.5"}': "0+60",
        'p2pcity_ordering_commit_duration_seconds_bucket{le="5.0"}': "0+60",
        'p2pcity_ordering_commit_duration_seconds_bucket{le="10.0"}': "0+60",
        'p2pcity_ordering_commit_duration_seconds_bucket{le="+Inf"}': "0+60",
    },
    "P2PCityClockOff": {
        'p2pcity_clock_verdict{verdict="wrong"}': "1",
        'p2pcity_clock_verdict{verdict="right"}': "0",
    },
    "P2PCityClockDrifts": {"p2pcity_clock_offset_seconds": "-2"},
    "P2PCityBehind": {"p2pcity_ledger_lag_blocks": "101"},
    "P2PCityDiskLow": {"p2pcity_disk_free_bytes": "100", "p2pcity_disk_free_limit_bytes": "200"},
    "P2PCityDiskFills": {"p2pcity_disk_free_bytes": "1000000-1000"},
    "P2PCitySyncSlow": {
        'p2pcity_ledger_sync_duration_seconds_bucket{le="0.25"}': "0+60",
        'p2pcity_ledger_sync_duration_seconds_bucket{le="0.5"}': "0+60",
        'p2pcity_ledger_sync_duration_seconds_bucket{le="1.0"}': "0+60",
        'p2pcity_ledger_sync_duration_seconds_bucket{le="2.5"}': "0+60",
        'p2pcity_ledger_sync_duration_seconds_bucket{le="5.0"}': "0+60",
        'p2pcity_ledger_sync_duration_seconds_bucket{le="+Inf"}': "0+60",
    },
    "P2PCityDiskHangs": {"p2pcity_ledger_sync_hang_seconds": "3"},
    "P2PCityFewPeers": {
        'p2pcity_net_peers{state="connected"}': "1",
        'p2pcity_net_peers{state="connecting"}': "4",
    },
    "P2PCityMempoolFull": {"p2pcity_mempool_bytes": "64000000"},
    "P2PCityRejects": {
        'p2pcity_admission_verdicts_total{reason="signature",verdict="reject"}': "0+120"
    },
    "P2PCityGossipDropped": {'p2pcity_gossip_messages_dropped_total{reason="queue-full"}': "0+120"},
    "P2PCityHttpErrors": {
        'p2pcity_http_requests_total{method="POST",route="/v1/events",status="503"}': "0+120"
    },
}
# Further nodes, for what one alone can't show.
OTHERS: Final = {"P2PCityTwoLeaders": {'p2pcity_raft_role{role="leader"}': "1"}}
# What fires with the one that is meant: a disk that is full will be full.
WITH: Final = {"P2PCityDiskLow": ["P2PCityDiskFills"]}


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a node that is well says."""
    return scrape_city_of_one(tmp_path_factory.mktemp("metrics"))


def expressions() -> list[str]:
    """Every query of the dashboard, with Grafana's variables filled in."""
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    found = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    filled = {"$job": "p2pcity", "$instance": ".*", "$__rate_interval": "1m"}
    for name, text in filled.items():
        found = [item.replace(name, text) for item in found]
    return found


def series_name(name: str, labels: dict[str, str]) -> str:
    return name + "{" + ",".join(f"{key}={json.dumps(text)}" for key, text in labels.items()) + "}"


def as_series(faults: dict[str, str], scraped: str, instance: str) -> Iterator[dict[str, str]]:
    """Constants for all that the node said and nobody changed, and what was changed."""
    node = {**_NODE, "instance": instance}
    values = {series_name("up", node): "1"}
    used = names_used(ALERTS.read_text(encoding="utf-8"))
    for (name, labels), number in samples(scraped).items():
        if name not in used:
            continue
        values[series_name(name, {**dict(labels), **node})] = f"{number:.6f}"
    for sample, text in faults.items():
        name, _, rest = sample.partition("{")
        changed = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        values[series_name(name, {**changed, **node})] = text
    for series, text in values.items():
        steps = text if re.search(r"\d[+-]\d", text) else f"{text}+0"
        yield {"series": series, "values": f"{steps}x{_MINUTES}"}


def case(name: str, series: list[dict[str, str]], firing: list[str]) -> dict[str, Any]:
    return {
        "name": name,
        "interval": "1m",
        "input_series": series,
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": f"{_MINUTES - 10}m",
                "exp_samples": [
                    {"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in firing
                ],
            }
        ],
    }


@pytest.mark.parametrize("path", [ALERTS, DASHBOARD], ids=lambda path: path.name)
def test_every_metric_that_is_used_is_one_of_a_node(path: Path, scraped: str) -> None:
    used = names_used(path.read_text(encoding="utf-8"))
    assert len(used) > 15
    assert used - names(scraped) == set()


@needs_promtool
def test_the_settings_beside_a_generated_network_are_prometheus_s(tmp_path: Path) -> None:
    """With the alert rules in the directory that it reads them from."""
    file = tmp_path / PROMETHEUS_FILE
    file.write_text(prometheus_text(["node1", "node2"]), encoding="utf-8")
    rules = tmp_path / RULES_DIRECTORY
    rules.mkdir()
    shutil.copy(ALERTS, rules)
    code, said = promtool("check", "config", str(file))
    assert code == 0, said
    assert "1 rule files found" in said or f"{rules.name}/{ALERTS.name}" in said, said


@needs_promtool
def test_the_text_is_what_prometheus_wants(scraped: str) -> None:
    assert promtool("check", "metrics", text=scraped) == (0, "")


@needs_promtool
def test_the_rules_are_valid() -> None:
    code, said = promtool("check", "rules", "--lint=all", "--lint-fatal", str(ALERTS))
    assert code == 0, said


@needs_promtool
def test_the_queries_of_the_dashboard_are_valid(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{at}", "expr": text} for at, text in enumerate(expressions())]
    file = tmp_path / "dashboard.json"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    code, said = promtool("check", "rules", str(file))
    assert code == 0, said
    assert "$" not in "".join(expressions()), "a variable that is not filled in"


@needs_promtool
def test_each_alert_fires_for_what_it_is_meant_for_and_none_for_a_node_that_is_well(
    tmp_path: Path, scraped: str
) -> None:
    own = list(as_series({}, scraped, "water:4711"))
    cases = [case("a node that is well", own, [])]
    for alert, faults in FAULTS.items():
        firing = [alert, *WITH.get(alert, ())]
        cases.append(case(alert, list(as_series(faults, scraped, "water:4711")), firing))
    for alert, faults in OTHERS.items():
        cases.append(case(alert, [*own, *as_series(faults, scraped, "roads:4711")], [alert]))
    file = tmp_path / "cases.json"
    rules = {"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": cases}
    file.write_text(json.dumps(rules))
    code, said = promtool("test", "rules", str(file))
    assert code == 0, said


def test_each_alert_has_a_case_and_says_what_to_do() -> None:
    text = ALERTS.read_text(encoding="utf-8")
    alerts = re.findall(r"- alert: (\w+)", text)
    assert sorted(alerts) == sorted([*FAULTS, *OTHERS])
    for word in ("severity:", "summary:", "description:"):
        assert text.count(word) == len(alerts), word


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        assert panel["type"] == "row" or (panel["targets"] and panel["description"])
    variables = {item["name"] for item in dashboard["templating"]["list"]}
    assert variables == {"datasource", "job", "instance"}
