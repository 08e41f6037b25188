"""Facts that stop a request to identity."""

from parley_kit.faults import Code, Fault


class ClaimCodeInvalid(Fault):
    """The claim code is unknown, used or expired: ask whoever imported the account for a new one."""

    code, reason = Code.FAILED_PRECONDITION, "CLAIM_CODE_INVALID"


class PublicKeyInvalid(Fault):
    """The public key is malformed, of small order, not canonical, or was used before: make a new key pair."""

    code, reason = Code.INVALID_ARGUMENT, "KEY_INVALID"


class MarketerNotFound(Fault):
    """No such marketer is visible to you: check its name."""

    code, reason = Code.NOT_FOUND, "MARKETER_NOT_FOUND"


class MarketerSuspended(Fault):
    """The marketer is suspended: it has to contact the operator."""

    code, reason = Code.FAILED_PRECONDITION, "MARKETER_SUSPENDED"


class ImportNotFound(Fault):
    """No such import, or not with all these rows, is visible to you: open its accounts first."""

    code, reason = Code.NOT_FOUND, "IMPORT_NOT_FOUND"
