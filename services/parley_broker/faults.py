"""Facts that stop a request to broker."""

from parley_kit.faults import Code, Fault


class ExchangeNotFound(Fault):
    """No exchange with this name is visible to you: see ListExchanges."""

    code, reason = Code.NOT_FOUND, "EXCHANGE_NOT_FOUND"


class DeliveryNotFound(Fault):
    """No delivery with this name is visible to you."""

    code, reason = Code.NOT_FOUND, "DELIVERY_NOT_FOUND"


class ResumeTokenInvalid(Fault):
    """The resume token is not one of this feed's: leave it empty to start with what isn't acknowledged."""

    code, reason = Code.INVALID_ARGUMENT, "RESUME_TOKEN_INVALID"


class VerificationRequired(Fault):
    """Your verification level is too low for this purpose or attribute: ask the operator to be verified."""

    code, reason = Code.PERMISSION_DENIED, "VERIFICATION_REQUIRED"


class ConsentPurposeRefused(Fault):
    """A purpose is missing or not in the vocabulary: use the DPV purposes that docs/terms.md lists."""

    code, reason = Code.INVALID_ARGUMENT, "INVALID_CONSENT_PURPOSE"


class DateRangeRefused(Fault):
    """The dates don't fit: the decision deadline lies ahead, not behind the end, and the end within the purpose's cap."""

    code, reason = Code.INVALID_ARGUMENT, "INVALID_DATE_RANGE"


class AttributeUnknown(Fault):
    """An attribute is not in the catalogue: see ListAttributes."""

    code, reason = Code.INVALID_ARGUMENT, "ATTRIBUTE_UNKNOWN"


class QuestionInvalid(Fault):
    """A question does not fit its attribute: values are in canonical text, sorted, without repeats; see ListAttributes."""

    code, reason = Code.INVALID_ARGUMENT, "VALUE_INVALID"
