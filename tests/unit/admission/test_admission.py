"""Admission: bounds, quotas over time, and the prose against the table (vectors have the rules)."""

import re
from pathlib import Path

from p2pcity.admission.admission import Admission, AdmissionConfig
from p2pcity.admission.quota import Quotas, TokenBucket
from p2pcity.admission.rules import RULES
from p2pcity.admission.seen import Seen
from tests.vectors_admission import AUTHORS, NOW_MS, PEER, State
from tests.vectors_event import FULL, MINIMAL
from tests.vectors_transaction import NETWORK, make


def test_the_prose_has_the_same_rules_in_the_same_order(repository: Path) -> None:
    text = (repository / "protocol" / "03-admission.md").read_text("utf-8")
    found = re.findall(r"^\d+\. \[(IGNORE|REJECT)\] `([a-z-]+)`", text, re.MULTILINE)
    assert found == [(rule.kind.upper(), rule.reason) for rule in RULES]


def test_every_rule_has_a_vector(repository: Path) -> None:
    folder = repository / "protocol" / "vectors" / "admission" / "invalid"
    assert {rule.reason for rule in RULES} <= {path.stem for path in folder.glob("*.json")}


def test_the_registry_has_every_reason(repository: Path) -> None:
    text = (repository / "protocol" / "registry.md").read_text("utf-8")
    for rule in RULES:
        assert f"| `{rule.reason}` | {rule.kind} |" in text


def test_an_ignored_transaction_can_be_admitted_later() -> None:
    admission = Admission(AdmissionConfig(), NETWORK)
    data = make(MINIMAL, FULL).data
    assert admission.admit(data, PEER, State({}), NOW_MS)[0].reason == "author-unknown"
    assert admission.admit(data, PEER, State(AUTHORS), NOW_MS)[0].is_accepted


def test_one_that_found_no_room_can_come_again() -> None:
    admission = Admission(AdmissionConfig(), NETWORK)
    carried = make(MINIMAL)
    state = State(AUTHORS)
    assert admission.admit(carried.data, PEER, state, NOW_MS)[0].is_accepted
    assert admission.admit(carried.data, PEER, state, NOW_MS)[0].reason == "duplicate"
    admission.forget(carried)
    assert admission.admit(carried.data, PEER, state, NOW_MS)[0].is_accepted


def test_duplicates_carry_the_id() -> None:
    admission = Admission(AdmissionConfig(), NETWORK)
    carried = make(MINIMAL)
    admission.admit(carried.data, None, State(AUTHORS), NOW_MS)
    verdict, _ = admission.admit(carried.data, None, State(AUTHORS), NOW_MS)
    assert verdict.id == carried.id


def test_a_peer_that_sends_rubbish_is_heard_less() -> None:
    config = AdmissionConfig(peer_per_second=100, peer_burst=100, peer_reject_cost=50)
    admission = Admission(config, NETWORK)
    state = State(AUTHORS)
    reasons = [admission.admit(bytes([i]), PEER, state, NOW_MS)[0].reason for i in range(4)]
    assert reasons == ["malformed", "malformed", "peer-quota", "peer-quota"]
    assert admission.admit(make(MINIMAL).data, PEER, state, NOW_MS + 1000)[0].is_accepted


def test_own_clients_have_no_peer_quota() -> None:
    admission = Admission(AdmissionConfig(peer_burst=0), NETWORK)
    assert admission.admit(make(MINIMAL).data, None, State(AUTHORS), NOW_MS)[0].is_accepted


def test_the_memory_is_bounded() -> None:
    seen = Seen(accepted_max=2, rejected_max=2)
    for number in range(5):
        seen.accept(bytes([number]), bytes([100 + number]))
        seen.reject(bytes([50 + number]), "malformed")
    assert [seen.has_id(bytes([100 + number])) for number in range(5)] == [False] * 3 + [True] * 2
    assert seen.verdict(bytes([2])) is None
    assert seen.verdict(bytes([52])) is None
    assert seen.verdict(bytes([54])) is not None


def test_a_bucket_refills_and_survives_a_clock_set_back() -> None:
    bucket = TokenBucket(per_second=10, burst=1, now_ms=10_000)
    assert bucket.take(10_000)
    assert not bucket.take(10_099)
    assert bucket.take(10_100)
    assert not bucket.take(1_000)
    assert bucket.take(1_100)


def test_quotas_forget_the_oldest_holder() -> None:
    quotas = Quotas(per_second=1, burst=1, holders_max=2)
    assert quotas.take("a", 0)
    assert not quotas.take("a", 0)
    assert quotas.take("b", 0)
    assert quotas.take("c", 0)
    assert quotas.take("a", 0)
