"""Writing down an agreement: its signed artefact, and what audit logs of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from parley.common.v1 import receipt_pb2 as receiptpb
from parley_bus.envelopes import Notary
from parley_consent.domain.artefact import Birth, common_claims, field_claims, own_claims
from parley_consent.domain.records import MarketerRecord
from parley_crypto.commitment import Opening
from parley_crypto.jws import Spelt, sign_statement, spelt
from parley_crypto.signing import Signer
from parley_terms.terms import Terms


@dataclass(frozen=True)
class Scribe:
    """Signs artefacts and notes agreements, releases and withdrawals for the log."""

    signer: Signer
    notary: Notary
    jurisdiction: str

    def common(self, deal: "Deal", *, by_rule: bool) -> Mapping[str, Spelt]:
        """What every artefact of a deal says, spelt once for all of them."""
        claims = common_claims(deal.marketer, deal.exchange, deal.terms, self.jurisdiction, by_rule=by_rule)
        return {name: spelt(each) for name, each in claims.items()}

    def artefact(self, common: Mapping[str, Spelt], birth: Birth, terms: Terms) -> str:
        """Sign the artefact of an agreement: what all say, and what is its own."""
        return sign_statement("consent", {**common, **own_claims(birth, terms)}, self.signer)

    def notice(self, consent_id: str, pseudonym: str, notice: str, at: datetime) -> str:
        """Sign what a marketer is told about a consent."""
        claims = {
            "consent": f"consents/{consent_id}",
            "pseudonym": pseudonym,
            "notice": notice,
            "iat": int(at.timestamp()),
        }
        return sign_statement("notice", claims, self.signer)

    def note(
        self, kind: str, about: Mapping[str, Any], audit_ref: bytes, **more: Any
    ) -> tuple[receiptpb.AuditNote, Opening]:
        """Note something that happened to an offer, a consent or a release of a customer."""
        return self.notary.note(kind, {**about, **more}, audit_ref)


@dataclass(frozen=True)
class Deal:
    """What agreements of an exchange have in common: with whom, and for what. It is spelt once for all of them."""

    marketer: MarketerRecord
    exchange: str
    terms: Terms

    def claims(self, consent_id: str, pseudonym: str) -> dict[str, Any]:
        """What every detail about one such agreement says, as canonical JSON takes it."""
        return {**self._in_details, "consent": f"consents/{consent_id}", "pseudonym": pseudonym}

    @cached_property
    def _in_details(self) -> Mapping[str, Any]:
        return {
            "marketer": self.marketer.marketer,
            "marketer_name": self.marketer.name,
            "exchange": self.exchange,
            "purposes": spelt(sorted(self.terms.purposes)),
            "fields": spelt([field_claims(field) for field in self.terms.fields]),
        }
