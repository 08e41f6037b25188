"""Releases: permits checked, exactly what they name opened, and sealed to the marketer. No record is kept."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from functools import lru_cache, partial

from google.protobuf.message import DecodeError
from structlog.typing import FilteringBoundLogger

from parley.common.v1 import permit_pb2 as permitpb
from parley.common.v1 import terms_pb2 as termspb
from parley_crypto.batch import Batch, BatchInvalid, verify_in_batch
from parley_crypto.jws import Keys
from parley_crypto.keyring import CiphertextInvalid, KeyRing
from parley_crypto.release import seal_release
from parley_crypto.signing import KeyInvalid, Signer, check_sealing_key
from parley_crypto.subject_ref import RefInvalid, open_ref
from parley_kit.clock import Clock
from parley_kit.offload import each
from parley_terms.terms import Field
from parley_terms.values import Catalogue
from parley_terms.wire import field_from
from parley_vault.domain.releasing import Permit, Refusal, refusal, release
from parley_vault.safe import Safe, Sealed
from parley_vault.store import Store, Wanted

READER = "vault"
"""Whose refs these are."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One release asked for: a sealed ref, and a permit with its place in the batch."""

    ref: bytes
    permit: permitpb.Permit


@dataclass(frozen=True, slots=True)
class Opening:
    """A permit that holds, and the subject it holds for."""

    subject: str
    permit: Permit

    def wanted(self) -> Iterator[Wanted]:
        """The items that it names."""
        for one in self.permit.fields:
            yield self.subject, one.attribute, self.permit.unchanged_since


@dataclass(frozen=True)
class Releases:
    """Opens what permits allow."""

    store: Store
    safe: Safe
    catalogue: Catalogue
    clock: Clock
    consent: Keys
    signer: Signer
    refs: KeyRing = field(repr=False)
    host: str
    log: FilteringBoundLogger

    async def release(self, batch: permitpb.PermitBatch, asked: Sequence[Asked]) -> list[bytes | Refusal]:
        """What came of each, in order: a sealed release or why there is none. All items are read in one statement."""
        openings = await each(partial(self._opening, batch), asked)
        named = (one for opening in openings if isinstance(opening, Opening) for one in opening.wanted())
        wanted = list(dict.fromkeys(named))
        sealed = await self.store.sealed(wanted) if wanted else {}
        return await each(partial(self._outcome, sealed), openings)

    def _opening(self, batch: permitpb.PermitBatch, asked: Asked) -> Opening | Refusal:
        try:
            permit = self._permit(batch, asked.permit)
            ref = open_ref(self.refs, READER, asked.ref)
        except (BatchInvalid, DecodeError, KeyInvalid, RefInvalid, KeyError, ValueError):
            return Refusal.INVALID
        return refusal(permit, ref, self.host, self.clock.now()) or Opening(ref.subject, permit)

    def _permit(self, batch: permitpb.PermitBatch, permit: permitpb.Permit) -> Permit:
        signed = Batch(batch.root, batch.size, batch.signature)
        verify_in_batch(self.consent[batch.key_id], signed, permit.body, permit.index, list(permit.proof))
        body = permitpb.PermitBody.FromString(permit.body)
        _check_key(body.sealing_key)
        return _permit_from(body)

    def _outcome(self, sealed: Mapping[Wanted, Sealed], opening: Opening | Refusal) -> bytes | Refusal:
        if isinstance(opening, Refusal):
            return opening
        try:
            values = {one[1]: self.safe.text(sealed[one]) for one in set(opening.wanted()) if one in sealed}
        except CiphertextInvalid as error:
            self.log.warning("item_refused", error_type=type(error).__name__)
            return Refusal.DEFECT
        return seal_release(self.signer, opening.permit.sealing_key, release(opening.permit, values, self.catalogue))


@lru_cache(256)
def _check_key(key: bytes) -> None:
    """Only success is remembered: one marketer's key comes many times."""
    check_sealing_key(key)


def _permit_from(body: permitpb.PermitBody) -> Permit:
    """Read a permit. Raises ValueError for a form that isn't one."""
    validity = body.terms.timing.validity
    return Permit(
        release_id=body.release_id,
        exchange=body.exchange,
        consent=body.consent,
        marketer=body.marketer,
        level=body.marketer_level,
        pseudonym=body.pseudonym,
        sealing_key=body.sealing_key,
        fields=_fields(tuple(one.SerializeToString(deterministic=True) for one in body.fields)),
        vault_host=body.vault_host,
        expires_at=body.expire_time.ToDatetime(tzinfo=UTC),
        unchanged_since=body.unchanged_since.ToDatetime(tzinfo=UTC) if body.HasField("unchanged_since") else None,
        until=validity.end_time.ToDatetime(tzinfo=UTC) if validity.HasField("end_time") else None,
    )


@lru_cache(256)
def _fields(raw: tuple[bytes, ...]) -> tuple[Field, ...]:
    """Read fields. Permits of one exchange name the same ones."""
    return tuple(field_from(termspb.Field.FromString(one)) for one in raw)
