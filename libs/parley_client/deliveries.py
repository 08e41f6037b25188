"""
What arrives: releases, opened and checked against everything around them, and notices about consents.

The broker carried all of it and is believed in nothing: a vault signed the values, consent signed the artefact and the notices.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from parley.broker.v1 import broker_pb2 as brokerpb
from parley_client.conditions import Question
from parley_client.errors import DeliveryInvalid
from parley_crypto.commitment import Opening
from parley_crypto.jws import StatementInvalid, verify_statement
from parley_crypto.release import open_release
from parley_crypto.signing import Sealer, SealInvalid
from parley_crypto.trust import Trust
from parley_terms.claims import question_of
from parley_terms.terms import Criterion


class Kind(StrEnum):
    """What a delivery is."""

    RELEASE = "release"
    NOTICE = "notice"


@dataclass(frozen=True, slots=True)
class Release:
    """
    Values and answers of one customer, under one consent.

    ``values`` are canonical text by attribute; ``answers`` are by question, those of the condition that found the customer
    among them. What the customer hasn't got is in neither. ``consent`` are the claims of the artefact (ISO/IEC TS 27560), and
    ``consent_artefact`` is it as signed, to keep. After ``expires`` they may not be used any more.
    """

    release_id: str
    exchange: str
    pseudonym: str
    values: Mapping[str, str] = field(repr=False)
    answers: Mapping[Question, bool] = field(repr=False)
    consent: Mapping[str, Any] = field(repr=False)
    consent_artefact: str = field(repr=False)
    expires: datetime | None

    @property
    def consent_name(self) -> str:
        """``consents/{consent}``."""
        return str(self.consent["record_id"])


@dataclass(frozen=True, slots=True)
class Notice:
    """What became of a consent: ``notice`` is ``ConsentRevoked``, ... ; ``signed_notice`` is it as signed, to keep."""

    consent: str
    pseudonym: str
    notice: str
    time: datetime
    signed_notice: str = field(repr=False)


@dataclass(frozen=True)
class Opener:
    """A marketer, its sealing keys (newest first), and whom it trusts."""

    marketer: str
    sealers: Sequence[Sealer]
    trust: Trust

    def release(self, message: brokerpb.ReleaseDelivery) -> Release:
        """Open and check a release. Raises DeliveryInvalid."""
        try:
            claims = self._unsealed(message.sealed_release)
            consent = verify_statement("consent", message.consent_artefact, self.trust.keys("consent"))
            _expect(claims, self._outside(message))
            _expect(consent, {"record_id": claims["consent"], "pii_principal_id": message.pseudonym})
            _expect(consent["pii_processing"][0], {"pii_controllers": [self.marketer]})
            return _release(message, claims, consent)
        except StatementInvalid as error:
            raise DeliveryInvalid(f"the release or its consent is not signed by whom you trust: {error}") from error
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise DeliveryInvalid("the release or its consent is not of a form this version reads") from error

    def notice(self, message: brokerpb.ConsentNotice) -> Notice:
        """Check a notice. Raises DeliveryInvalid."""
        try:
            claims = verify_statement("notice", message.signed_notice, self.trust.keys("consent"))
            said = {"consent": message.consent, "pseudonym": message.pseudonym, "notice": message.notice}
            _expect(claims, said)
            time = datetime.fromtimestamp(claims["iat"], UTC)
        except StatementInvalid as error:
            raise DeliveryInvalid(f"the notice is not signed by a consent service you trust: {error}") from error
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DeliveryInvalid("the notice is not of a form this version reads") from error
        return Notice(message.consent, message.pseudonym, message.notice, time, message.signed_notice)

    def _outside(self, message: brokerpb.ReleaseDelivery) -> Mapping[str, str]:
        return {
            "marketer": self.marketer,
            "pseudonym": message.pseudonym,
            "exchange": message.exchange,
            "release": message.release_id,
        }

    def _unsealed(self, sealed: bytes) -> dict[str, Any]:
        for sealer in self.sealers:
            try:
                return open_release(sealer, sealed, self.trust.keys("vault"))
            except SealInvalid:
                continue
        raise DeliveryInvalid(
            "the release is not sealed to a key of yours, or was changed: if you added a key, start again with the newer key file"
        )


@dataclass(frozen=True)
class Delivery:
    """
    One thing on the feed. It comes again, whenever the feed is read anew, until it is acknowledged.

    It holds the marketer's keys, so it isn't pickled: keep :meth:`to_bytes`, which only the marketer can open.
    """

    message: brokerpb.Delivery = field(repr=False)
    opener: Opener = field(repr=False)

    def __repr__(self) -> str:
        return f"Delivery({self.name!r}, {self.message.WhichOneof('payload')})"

    def to_bytes(self) -> bytes:
        """Write it as it came, for :meth:`parley_client.Client.delivery` to read again."""
        return self.message.SerializeToString()

    @property
    def name(self) -> str:
        """``deliveries/{delivery}``."""
        return self.message.name

    @property
    def kind(self) -> Kind:
        """Whether to :meth:`open` it or to read its :meth:`notice`."""
        return Kind(self.message.WhichOneof("payload") or "")

    @property
    def opening(self) -> Opening:
        """What opens the commitment that stands for it in the audit log."""
        opening = self.message.release.opening if self.kind is Kind.RELEASE else self.message.notice.opening
        return Opening(opening.salt, opening.detail)

    def open(self) -> Release:
        """
        Open a release.

        Raises DeliveryInvalid for one that is not for this marketer and its keys, not signed by a vault and a consent service
        that are trusted, or says inside other than outside; TypeError for a notice.
        """
        if self.kind is not Kind.RELEASE:
            raise TypeError("this delivery is a notice: read it with notice()")
        return self.opener.release(self.message.release)

    def notice(self) -> Notice:
        """Read a notice. Raises DeliveryInvalid for one that consent didn't sign as it stands; TypeError for a release."""
        if self.kind is not Kind.NOTICE:
            raise TypeError("this delivery is a release: open it with open()")
        return self.opener.notice(self.message.notice)

    def said(self) -> Mapping[str, str]:
        """What its entry in the audit log must say, by the checked content. Raises DeliveryInvalid."""
        if self.kind is Kind.NOTICE:
            notice = self.notice()
            about = {"consent": notice.consent, "pseudonym": notice.pseudonym, "notice": notice.notice}
            return {"kind": "consent:notice:written", "marketer": self.opener.marketer, **about}
        release = self.open()
        return {
            "kind": "consent:release:settled",
            "marketer": self.opener.marketer,
            "release": release.release_id,
            "pseudonym": release.pseudonym,
            "exchange": release.exchange,
            "consent": release.consent_name,
        }


def mismatches(claims: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Names of what a statement says otherwise than expected."""
    return [name for name, value in expected.items() if claims.get(name) != value]


def _expect(claims: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    if wrong := mismatches(claims, expected):
        raise DeliveryInvalid(f"what is signed differs from what was delivered: {', '.join(wrong)}")


def _release(message: brokerpb.ReleaseDelivery, claims: Mapping[str, Any], consent: Mapping[str, Any]) -> Release:
    fields = claims["fields"]
    expires = claims.get("expires")
    return Release(
        release_id=message.release_id,
        exchange=message.exchange,
        pseudonym=message.pseudonym,
        values={each["attribute"]: str(each["value"]) for each in fields if each["form"] == "exact"},
        answers={_question(each): each["answer"] is True for each in fields if each["form"] == "answer"},
        consent=consent,
        consent_artefact=message.consent_artefact,
        expires=datetime.fromisoformat(expires) if expires else None,
    )


def _question(claims: Mapping[str, Any]) -> Question:
    return Question(Criterion(claims["attribute"], question_of(claims["question"])))
