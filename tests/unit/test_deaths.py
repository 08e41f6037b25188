"""Processes are killed between every two commits of a campaign: whoever adds one adds where to die, or why not."""

import re

from tests.support.deaths import points
from tests.support.documents import ROOT

SERVICES = ("broker", "consent", "identity", "vault", "audit")
NO_CAMPAIGN_COMES_BY = {
    "broker.AcknowledgeDeliveries": "takes notices off the feed: of withdrawals, which are raced elsewhere",
    "broker.lapse": "a deadline that passes, a week from now",
    "broker.postpone": "a customer who has paused, or objects",
    "broker.unsettled": "a withdrawal that comes between: raced elsewhere",
    "consent.EndConsents": "an objection",
    "consent.Object": "an objection",
    "consent.after_free": "a settlement that waits for another: raced elsewhere",
    "consent.notices": "a withdrawal",
}


def test_every_place_between_two_commits_is_one_to_die_at() -> None:
    code = "".join(path.read_text("utf-8") for path in (ROOT / "services").glob("parley_*/*.py"))
    reached = set(re.findall(r'reach\("([\w.]+)"\)', code))
    named = re.findall(r'db\.(?:run|tx)\("([\w.]+)"', code)
    places = reached | {f"{name}.{side}_commit" for name in named for side in ("before", "after")}
    known = {point for service in SERVICES for point in points(service)}
    excused = {place for place in places - known if _transaction(place) in NO_CAMPAIGN_COMES_BY}
    assert places - known == excused
    assert {_transaction(place) for place in excused} == {*NO_CAMPAIGN_COMES_BY}


def _transaction(place: str) -> str:
    return place.removesuffix(".before_commit").removesuffix(".after_commit")
