"""Facts that stop a request to broker."""

from parley_kit.faults import Code, Fault


class ExchangeNotFound(Fault):
    """No exchange with this name is visible to you: see ListExchanges."""

    code, reason = Code.NOT_FOUND, "EXCHANGE_NOT_FOUND"


class DeliveryNotFound(Fault):
    """No delivery with this name is visible to you: acknowledge by the names that came with the deliveries."""

    code, reason = Code.NOT_FOUND, "DELIVERY_NOT_FOUND"


class ResumeTokenInvalid(Fault):
    """The resume token is not one of this feed's: leave it empty to start with what isn't acknowledged."""

    code, reason = Code.INVALID_ARGUMENT, "RESUME_TOKEN_INVALID"


class VerificationRequired(Fault):
    """Your verification level is too low for this purpose or attribute: ask the operator to be verified."""

    code, reason = Code.PERMISSION_DENIED, "VERIFICATION_REQUIRED"
