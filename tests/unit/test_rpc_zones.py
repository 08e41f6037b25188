from pathlib import Path

import pytest

from parley_rpc.principal import ANYONE, Principal, caller
from parley_rpc.zones import Zone, Zones

GOOD = """
[tables]
outbox = ["SELECT", "INSERT"]
[zones.vault]
knows = "items"
must_never_know = "who"
tables = { items = ["SELECT"] }
[zones.broker]
knows = "exchanges"
must_never_know = "values"
tables = {}

[[calls]]
caller = "broker"
service = "parley.vault.v1.VaultService"
methods = ["Match", "Release"]
[[calls]]
caller = "customer"
service = "parley.vault.v1.VaultService"
methods = ["PutItem"]
[[calls]]
caller = "anyone"
service = "parley.audit.v1.AuditService"
methods = ["GetCheckpoint"]

[[events]]
writer = "vault"
readers = ["broker"]
"""
MATCH = "/parley.vault.v1.VaultService/Match"


@pytest.fixture(scope="module")
def zones() -> Zones:
    return Zones.parse(GOOD)


@pytest.mark.parametrize(
    ("principal", "method", "answer"),
    [
        (Principal("service", "broker"), MATCH, True),
        (Principal("service", "broker"), "/parley.vault.v1.VaultService/PutItem", False),
        (Principal("service", "broker"), "/parley.vault.v1.VaultService/Unlisted", False),
        (Principal("service", "broker"), "/parley.vault.v1.VaultService/Match/", False),
        (Principal("service", "broker"), "parley.vault.v1.VaultService/Match", False),
        (Principal("service", "vault"), MATCH, False),
        (Principal("service", "customer"), "/parley.vault.v1.VaultService/PutItem", False),
        (Principal("customer", "broker"), MATCH, False),
        (Principal("customer", "c1"), "/parley.vault.v1.VaultService/PutItem", True),
        (Principal("marketer", "m1"), "/parley.vault.v1.VaultService/PutItem", False),
        (ANYONE, "/parley.vault.v1.VaultService/PutItem", False),
        (ANYONE, "/parley.audit.v1.AuditService/GetCheckpoint", True),
        (Principal("marketer", "m1"), "/parley.audit.v1.AuditService/GetCheckpoint", True),
        (ANYONE, "/grpc.health.v1.Health/Check", True),
        (ANYONE, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", True),
        (ANYONE, "/grpc.health.v1.HealthX/Check", False),
    ],
)
def test_everything_is_refused_unless_listed(zones: Zones, principal: Principal, method: str, answer: bool) -> None:
    assert answer is zones.allows(principal, method)


def test_zone_is_described_and_its_tables_are_listed_with_those_that_all_have(zones: Zones) -> None:
    assert Zone("items", "who", {"outbox": ("SELECT", "INSERT"), "items": ("SELECT",)}) == zones.zones["vault"]


def test_zone_knows_whom_it_calls_and_whose_events_it_reads(zones: Zones) -> None:
    assert [("vault",), ()] == [zones.callees(name) for name in ("broker", "vault")]
    assert [("vault",), ()] == [zones.reads(name) for name in ("broker", "vault")]


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('knows = "items"', 'knows = "items"\nsecret = 1', "zone vault must hold exactly"),
        ('knows = "items"', "", "zone vault must hold exactly"),
        ("[zones.vault]", "[extra]\n[zones.vault]", "the file must hold exactly"),
        ("[zones.vault]", "[zones.customer]", "can't be called customer"),
        ('methods = ["PutItem"]', 'methods = ["PutItem"]\nexcept = []', "each of"),
        ('caller = "broker"', 'caller = "brokre"', "neither a zone nor a kind"),
        ('caller = "broker"', 'caller = "service"', "neither a zone nor a kind"),
        ('["PutItem"]', "[]", "list of names"),
        ('["PutItem"]', '["*"]', "list of names"),
        ('["PutItem"]', '["PutItem", "PutItem"]', "listed twice for customer"),
        ("parley.audit.v1.AuditService", "parley.audit.v1.*", "no full service name"),
        ("[[calls]]", "[[calls", "array"),
        ('items = ["SELECT"]', 'items = ["ALL"]', "may do with items must be a list of"),
        ('items = ["SELECT"]', "items = []", "may do with items must be a list of"),
        ('items = ["SELECT"]', 'items = ["SELECT", "SELECT"]', "each once"),
        ('items = ["SELECT"]', 'outbox = ["SELECT"]', "tables that every zone has are listed for vault"),
        ('readers = ["broker"]', 'readers = ["brokre"]', "are no zones"),
        ('readers = ["broker"]', 'readers = ["vault"]', "other zones that read them"),
        ('readers = ["broker"]', "readers = []", "other zones that read them"),
        ('readers = ["broker"]', 'readers = ["broker"]\ngroup = 1', "each of"),
    ],
)
def test_mistake_in_the_file_stops_the_start(old: str, new: str, complaint: str) -> None:
    assert old in GOOD
    with pytest.raises(ValueError, match=complaint):
        Zones.parse(GOOD.replace(old, new, 1))


def test_file_is_loaded_from_a_path(tmp_path: Path) -> None:
    (tmp_path / "z.toml").write_text(GOOD)

    assert Zones.load(tmp_path / "z.toml").allows(Principal("service", "broker"), MATCH)


def test_shipped_file_is_found_and_holds() -> None:
    assert Zones.load().allows(Principal("service", "broker"), MATCH)


def test_nobody_calls_outside_a_call() -> None:
    with pytest.raises(LookupError):
        caller()
