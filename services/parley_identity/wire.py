"""Identity's records between wire and value."""

from datetime import datetime

from parley.common.v1 import terms_pb2 as termspb
from parley.identity.v1 import identity_pb2 as identitypb
from parley_identity.commands.signin import Issued
from parley_identity.domain.marketers import Marketer, MarketerKey, Profile
from parley_identity.keys import Refs
from parley_kit.faults import InvalidRequest, Violation
from parley_terms.terms import Level
from parley_terms.wire import timestamp


def profile_from(request: identitypb.RegisterMarketerRequest) -> Profile:
    """Read what is said of a marketer. Raises InvalidRequest for text that is blank, or can't be shown."""
    texts = {name: getattr(request, name) for name in ("display_name", "legal_entity", "contact")}
    if wrong := [name for name, text in texts.items() if not text.strip() or not text.isprintable()]:
        raise InvalidRequest(violations=[Violation(name, "must be printable text") for name in wrong])
    return Profile(request.display_name, request.legal_entity, Level(request.verification_level), request.contact)


def level_from(level: int) -> Level | None:
    """Read a level; None where it is left unspecified."""
    return Level(level) if level else None


def marketer_to(marketer: Marketer, now: datetime) -> identitypb.Marketer:
    """Write a marketer, with the keys that are good now."""
    about = marketer.profile
    return identitypb.Marketer(
        name=marketer.name,
        display_name=about.display_name,
        legal_entity=about.legal_entity,
        verification_level=termspb.VerificationLevel.ValueType(about.level),
        contact=about.contact,
        suspended=marketer.suspended,
        keys=[_key_to(key) for key in marketer.accepted_keys(now)],
    )


def _key_to(key: MarketerKey) -> identitypb.MarketerKey:
    return identitypb.MarketerKey(
        key_id=key.key_id,
        use=identitypb.KeyUse.ValueType(key.use),
        public_key=key.public_key,
        expire_time=timestamp(key.expire_time) if key.expire_time else None,
    )


def token_to(issued: Issued) -> identitypb.AccessToken:
    """Write an access token."""
    return identitypb.AccessToken(service=issued.service, token=issued.token, expire_time=timestamp(issued.expire_time))


def introduction_to(refs: Refs | None) -> identitypb.Introduction:
    """Write an introduction, an empty one for nobody."""
    if refs is None:
        return identitypb.Introduction()
    return identitypb.Introduction(
        pseudonym=refs.pseudonym,
        consent_ref=refs.consent,
        vault_ref=refs.vault,
        audit_ref=refs.audit,
        identity_ref=refs.identity,
    )
