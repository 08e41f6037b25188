"""Facts that stop a request to consent."""

from parley_kit.faults import Code, Fault


class ConsentNotFound(Fault):
    """No consent with this name is visible to you: see ListConsents."""

    code, reason = Code.NOT_FOUND, "CONSENT_NOT_FOUND"


class OfferNotFound(Fault):
    """No offer with this name is visible to you: see ListOffers."""

    code, reason = Code.NOT_FOUND, "OFFER_NOT_FOUND"


class RuleNotFound(Fault):
    """No rule with this name is visible to you: see ListRules."""

    code, reason = Code.NOT_FOUND, "RULE_NOT_FOUND"


class TooManyRules(Fault):
    """As many rules stand as one may have: end some that you don't need."""

    code, reason = Code.RESOURCE_EXHAUSTED, "TOO_MANY_RULES"


class InvalidConsentStatus(Fault):
    """The consent or offer is past this: it was answered, has lapsed, or has ended. Read it again."""

    code, reason = Code.FAILED_PRECONDITION, "INVALID_CONSENT_STATUS"
