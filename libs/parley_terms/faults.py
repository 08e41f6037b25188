"""Facts about terms that stop a request, whichever service it is that notices."""

from parley_kit.faults import Code, Fault


class AttributeUnknown(Fault):
    """An attribute is not in the catalogue: see ListAttributes."""

    code, reason = Code.INVALID_ARGUMENT, "ATTRIBUTE_UNKNOWN"


class InvalidValue(Fault):
    """A value or question does not fit its attribute: see ListAttributes. Questions are in canonical text, sorted."""

    code, reason = Code.INVALID_ARGUMENT, "VALUE_INVALID"


class InvalidConsentPurpose(Fault):
    """A purpose is missing or not in the vocabulary: use the DPV purposes that docs/terms.md lists."""

    code, reason = Code.INVALID_ARGUMENT, "INVALID_CONSENT_PURPOSE"


class InvalidDateRange(Fault):
    """The dates don't fit together, or lie outside what the purpose allows: see the named fields."""

    code, reason = Code.INVALID_ARGUMENT, "INVALID_DATE_RANGE"
