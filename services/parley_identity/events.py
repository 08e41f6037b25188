"""What identity publishes. It hears nothing."""

from dataclasses import dataclass

from parley.identity.v1 import identity_events_pb2 as eventspb
from parley_bus.envelopes import Notary, envelope
from parley_db.outbox import OutboxEvent
from parley_identity.domain.accounts import Account
from parley_identity.domain.marketers import Marketer
from parley_identity.keys import Naming


@dataclass(frozen=True)
class Publishing:
    """Writes events, each with a note that audit logs."""

    notary: Notary
    naming: Naming

    def opened(self, account: Account) -> OutboxEvent:
        """An account was opened: registered, or imported and complete."""
        return self._account("identity:account:opened", account, imported=account.import_row is not None)

    def claimed(self, account: Account) -> OutboxEvent:
        """An imported account was claimed by its owner."""
        return self._account("identity:account:claimed", account, imported=True)

    def registered(self, marketer: Marketer) -> OutboxEvent:
        """A marketer was registered."""
        return self._marketer("identity:marketer:registered", marketer)

    def changed(self, marketer: Marketer) -> OutboxEvent:
        """A marketer's level, suspension or keys changed."""
        return self._marketer("identity:marketer:changed", marketer)

    def _account(self, kind: str, account: Account, *, imported: bool) -> OutboxEvent:
        note, _ = self.notary.note(kind, {"imported": imported}, self.naming.for_audit(account))
        event = eventspb.AccountOpened(note=note)
        return envelope(event, self.notary.clock.now())

    def _marketer(self, kind: str, marketer: Marketer) -> OutboxEvent:
        detail = {
            "marketer": marketer.name,
            "marketer_name": marketer.profile.display_name,
            "level": int(marketer.profile.level),
            "suspended": marketer.suspended,
            "keys": sorted(key.key_id for key in marketer.keys if key.expire_time is None),
        }
        note, _ = self.notary.note(kind, detail)
        event = eventspb.MarketerChanged(note=note, marketer=marketer.name, suspended=marketer.suspended)
        return envelope(event, self.notary.clock.now())
