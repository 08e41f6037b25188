"""Rows of what a customer is asked, and of what they agreed."""

from parley.consent.v1 import consent_pb2 as consentpb
from parley_node.cli import show
from parley_node.cli.terms_text import parts


def offer_row(offer: consentpb.Offer) -> show.Row:
    """Write an offer as a row."""
    return {**_common(offer), "answer_by": show.moment(offer.terms.timing.decision_deadline)}


def consent_row(consent: consentpb.Consent) -> show.Row:
    """Write a consent as a row."""
    return {**_common(consent), "agreed": show.moment(consent.create_time)}


def _common(found: consentpb.Offer | consentpb.Consent) -> show.Row:
    return {
        "name": found.name,
        "state": consentpb.ConsentState.Name(found.state).removeprefix("CONSENT_STATE_"),
        "who": found.marketer_display_name,
        "marketer": found.marketer,
        **parts(found.terms),
    }
