"""Identity's keys at work: making accounts, naming customers to the other services, deriving pseudonyms."""

import secrets
from dataclasses import dataclass, field
from pathlib import Path

from parley_crypto.keyring import KeyRing, require_ring
from parley_crypto.pseudonym import pseudonym, sector_key
from parley_crypto.subject_ref import CandidateRef, RefInvalid, SubjectRef, open_candidate, seal_ref
from parley_identity.domain.accounts import Account
from parley_kit.ids import Entropy, new_id


@dataclass(frozen=True, slots=True)
class Refs:
    """What the broker carries for one customer: one sealed ref a service, and the pseudonym it may read."""

    pseudonym: str
    consent: bytes
    vault: bytes
    audit: bytes
    identity: bytes


@dataclass(frozen=True)
class Seeds:
    """Opens accounts, each with random ids and a wrapped random seed, and derives pseudonyms from the seeds."""

    wrap: KeyRing
    pseudonym_key: bytes = field(repr=False)
    entropy: Entropy = secrets.token_bytes

    def account(self, *, public_key: bytes | None = None, import_row: bytes | None = None) -> Account:
        """Make an account: complete at once if its owner brings a key, else when its import is."""
        customer = new_id(self.entropy)
        return Account(
            customer,
            vault_subject=new_id(self.entropy),
            consent_subject=new_id(self.entropy),
            audit_subject=new_id(self.entropy),
            wrapped_seed=self.wrap.wrap(self.entropy(32), *_place(customer)),
            public_key=public_key,
            import_row=import_row,
            complete=public_key is not None,
        )

    def require(self, path: Path, account: Account) -> None:
        """Refuse a wrapping key, read from a path, that doesn't open an account's seed. Raises KeyFileUnusable."""
        require_ring(path, lambda: self._seed(account))

    def sector(self, sector: str, epoch: int) -> bytes:
        """Derive the key of a sector in an epoch."""
        return sector_key(self.pseudonym_key, sector, epoch)

    def pseudonym(self, account: Account, sector: bytes) -> str:
        """Derive an account's pseudonym in a sector, by the sector's key. Raises CiphertextInvalid."""
        return pseudonym(self._seed(account), sector)

    def _seed(self, account: Account) -> bytes:
        return self.wrap.unwrap(account.wrapped_seed, *_place(account.customer))


def _place(customer: str) -> tuple[str, ...]:
    return ("identity", "customers", customer, "seed")


@dataclass(frozen=True)
class Naming:
    """Seals refs, each to the one service that it is for. ``host`` is the vault host that customers live with."""

    vault: KeyRing
    consent: KeyRing
    audit: KeyRing
    identity: KeyRing
    candidate: KeyRing
    host: str

    def for_vault(self, account: Account) -> bytes:
        """Name a customer to vault, to no marketer."""
        return seal_ref(self.vault, "vault", SubjectRef(account.vault_subject, self.host))

    def for_audit(self, account: Account) -> bytes:
        """Name a customer to audit, to no marketer."""
        return seal_ref(self.audit, "audit", SubjectRef(account.audit_subject))

    def introduction(self, account: Account, alias: str, marketer: str) -> Refs:
        """Name a customer to every service, as one marketer knows them by the pseudonym ``alias``."""

        def sealed(ring: KeyRing, reader: str, subject: str) -> bytes:
            return seal_ref(ring, reader, SubjectRef(subject, self.host, alias, marketer))

        return Refs(
            alias,
            consent=sealed(self.consent, "consent", account.consent_subject),
            vault=sealed(self.vault, "vault", account.vault_subject),
            audit=sealed(self.audit, "audit", account.audit_subject),
            identity=sealed(self.identity, "identity", account.customer),
        )

    def candidate_subject(self, sealed: bytes, marketer: str, exchange: str) -> str | None:
        """Vault's id of a candidate; None for what was not found for this exchange of this marketer."""
        try:
            found = open_candidate(self.candidate, sealed)
        except RefInvalid:
            return None
        return found.subject if found == CandidateRef(found.subject, exchange, marketer) else None
