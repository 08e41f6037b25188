"""Facts that stop a request to audit, or an event on its way into the log."""

from parley_kit.faults import Code, Conflict, Fault, Unavailable
from parley_rpc.settings import SettingsWrong


class ProofNotFound(Fault):
    """No published checkpoint covers this commitment: events reach the log within seconds, so ask again shortly."""

    code, reason = Code.NOT_FOUND, "PROOF_NOT_FOUND"


class HeadMoved(Conflict):
    """Another writer has appended to the log meanwhile: nothing of this append was kept."""


class LogRefused(Unavailable):
    """The log does not extend its newest published checkpoint, or nobody has looked yet: nothing is appended or signed."""


class NoteRefused(Exception):
    """An event carries no note, or one whose opening does not open its commitment. It must never reach the log."""


class LogForeign(SettingsWrong):
    """The database holds a log of another origin: the configured one can't be continued here."""


class SealingKeyUnknown(SettingsWrong):
    """The trust file names another sealing key for audit than the key file: nothing that is sealed to it would open."""
