"""Processes are killed between every two commits of a campaign: whoever adds one adds where to die, or why not."""

import re

from tests.support.deaths import points
from tests.support.documents import ROOT
from tests.support.mutations import MUTATIONS

SERVICES = ("broker", "consent", "identity", "vault", "audit")
NO_CAMPAIGN_COMES_BY = {
    "broker.after_lapse": "a deadline that passes, a week from now",
    "broker.after_sweep": "as above, or a marketer who cancels",
    "consent.after_free": "a read of who is locked, before those who aren't are settled as ever: raced elsewhere",
    "identity.CompleteImportedAccounts": "an import",
    "identity.OpenImportedAccounts": "an import",
}
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


def _transaction(place: str) -> str:
    return place.removesuffix(".before_commit").removesuffix(".after_commit")
