"""Processes are killed between every two commits of a campaign: whoever adds one adds where to die, or why not."""

import re

from parley_db.queries import parse
from tests.support.deaths import points
from tests.support.documents import ROOT
from tests.support.mutations import MUTATIONS

SERVICES = ("broker", "consent", "identity", "vault", "audit")
NO_CAMPAIGN_COMES_BY = {
    "consent.after_put_off": "a notice that is late: by an outage, a week from now",
    "broker.after_keep": "a turn that takes longer than half of its lease",
    "broker.after_lapse": "a deadline that passes, a week from now",
    "broker.after_sweep": "as above, or a marketer who cancels",
    "consent.after_free": "a read of who is locked, before those who aren't are settled as ever: raced elsewhere",
    "identity.CompleteImportedAccounts": "an import",
    "identity.OpenImportedAccounts": "an import",
    "vault.after_look": "a customer who looks at what is theirs",
}
NOBODY_ASKED = {
    "assertions_purge": "what nobody may use any more",
    "claim_codes_purge": "as above",
    "customers_free": "locks, and writes nothing",
    "log_open": "the log's beginning, at a start",
    "settle": "with the points around it, where it is called",
}
"""Statements that commit by themselves, without a point behind them."""
_OTHERS = {*map(str, MUTATIONS)} - {
    f"consent.{method}"
    for method in ("AcceptOffer", "DeleteRule", "LiftObjection", "PauseConsent", "ResumeConsent", "WithdrawConsent")
}
"""What a campaign has nothing of, or is one statement: whoever gives up in one asks again (tests/chaos/test_cancels.py)."""


def test_every_place_between_two_commits_is_one_to_die_at() -> None:
    code = "".join(path.read_text("utf-8") for path in (ROOT / "services").rglob("parley_*/**/*.py"))
    reached = set(re.findall(r'reach\("([\w.]+)"\)', code))
    named = [*re.findall(r'db\.(?:run|tx)\("([\w.]+)"', code), *map(str, MUTATIONS)]
    places = reached | {f"{name}.{side}_commit" for name in named for side in ("before", "after")}
    known = {point for service in SERVICES for point in points(service)}
    assert {_transaction(place) for place in places - known} == {*NO_CAMPAIGN_COMES_BY, *_OTHERS}


def test_every_statement_that_writes_by_itself_has_a_place_to_die_at() -> None:
    without = set[str]()
    for service in SERVICES:
        folder = ROOT / "services" / f"parley_{service}"
        statements = parse((folder / "queries.sql").read_text("utf-8"), service)
        for code in "".join(path.read_text("utf-8") for path in folder.rglob("*.py")).split("async def "):
            run = set(re.findall(r"db\.(?:execute|fetch\w*)\(\s*_SQL\.(\w+)", code))
            without |= {name for name in run if _WRITES.search(statements[name]) and "await reach(" not in code}
    assert {*NOBODY_ASKED} == without


_WRITES = re.compile(r"\b(?:INSERT INTO|UPDATE|DELETE FROM)\b|\b(?:settle|acknowledge|finish)\(")


def _transaction(place: str) -> str:
    return place.removesuffix(".before_commit").removesuffix(".after_commit")
