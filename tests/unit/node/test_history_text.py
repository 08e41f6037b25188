"""A customer's history is told in words of theirs, and names whom it is about wherever it can."""

import json
import re
from typing import Any

from parley.audit.v1 import audit_pb2 as auditpb
from parley_node.cli.history_text import WORDS, history_rows
from tests.support.documents import ROOT

SHOP = "marketers/7dejtlozkbslaweutfwwibuljy"
OF_MARKETERS = {"identity:marketer:changed", "identity:marketer:registered"}


def _entry(kind: str, **detail: Any) -> auditpb.HistoryEntry:
    return auditpb.HistoryEntry(kind=kind, commitment=bytes(32), detail=json.dumps({"kind": kind, **detail}).encode())


def _told(*entries: auditpb.HistoryEntry) -> list[tuple[str, str, str]]:
    return [(row["what"], row["with"], row["about"]) for row in history_rows(entries, whole=False)]


def test_release_and_its_acknowledgement_name_the_marketer() -> None:
    fields = [{"form": "exact", "pii_type": "profile.city"}]
    purposes = ["https://w3id.org/dpv#Marketing"]
    told = _told(
        _entry("broker:release:acknowledged", marketer=SHOP),
        _entry("consent:release:settled", marketer=SHOP, marketer_name="Shop", fields=fields, purposes=purposes),
    )
    assert [
        ("the marketer has it", "Shop", ""),
        ("it was released", "Shop", "profile.city; for Marketing"),
    ] == told


def test_marketer_that_nothing_names_is_told_whole() -> None:
    assert [("the marketer has it", SHOP, "")] == _told(_entry("broker:release:acknowledged", marketer=SHOP))


def test_items_are_named_and_never_numbered() -> None:
    told = _told(
        _entry("vault:items:discoverable", items=[{"attribute": "profile.age", "to": "verified", "version": 1}]),
        _entry("vault:items:put", items=[{"attribute": "profile.age", "version": 1}]),
    )
    assert ["profile.age to verified", "profile.age"] == [about for _, _, about in told]


def test_kind_that_is_not_known_yet_stands_for_itself() -> None:
    assert [("consent:dream:dreamt", "", "")] == _told(_entry("consent:dream:dreamt"))


def test_whole_history_has_everything() -> None:
    (row,) = history_rows([_entry("consent:release:settled", marketer=SHOP, release="r")], whole=True)
    assert ("consent:release:settled", "r", "0" * 64) == (row["what"], row["detail"]["release"], row["commitment"])


def test_every_kind_that_a_service_writes_has_words() -> None:
    code = "".join(path.read_text("utf-8") for path in (ROOT / "services").glob("parley_*/*.py"))
    kinds = set(re.findall(r'"((?:identity|consent|broker):\w+:\w+)"', code)) - OF_MARKETERS
    kinds |= {f"vault:items:{action}" for action in ("put", "deleted", "discoverable")}
    assert kinds == {*WORDS}
