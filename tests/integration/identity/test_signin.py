"""Sign-in: who gets which tokens, and that every refusal looks alike."""

import asyncio
import base64
import io
import json
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.api_jws import PyJWS

from parley.identity.v1 import identity_pb2 as identitypb
from parley_crypto.jws import sign_statement
from parley_crypto.signing import Signer
from parley_crypto.statements import make_assertion
from parley_crypto.subject_ref import SubjectRef, open_ref
from parley_db.database import Database
from parley_identity.faults import MarketerSuspended
from parley_identity.store import Store
from parley_identity.upkeep import Upkeep
from parley_kit.faults import Fault, Unauthenticated
from parley_rpc import logs
from tests.support.calls import fault_of
from tests.support.identity import DEADLINE, Party, World, rows


async def refusal(world: World, assertion: str) -> Fault:
    return await fault_of(world.anyone.SignIn(identitypb.SignInRequest(assertion=assertion), timeout=DEADLINE))


def claims(world: World, party: Party, **changes: object) -> dict[str, object]:
    now = int(world.clock.now().timestamp())
    good = {"iss": party.name, "sub": party.name, "aud": "parley.identity", "jti": "1", "iat": now, "exp": now + 60}
    return {**good, **changes}


def signed(party: Party, body: dict[str, object]) -> str:
    """Sign claims that canonical JSON would refuse."""
    headers = {"typ": "parley-assertion+jws", "kid": party.signer.key_id}
    return PyJWS(algorithms=["EdDSA"]).encode(
        json.dumps(body).encode(), Ed25519PrivateKey.from_private_bytes(party.signer.seed), "EdDSA", headers
    )


async def test_customer_gets_tokens_for_vault_consent_and_audit(world: World) -> None:
    tokens = await world.tokens(await world.register_customer())

    assert {"vault": "customer", "consent": "customer", "audit": "customer"} == {s: t.kind for s, t in tokens.items()}


async def test_vault_and_consent_learn_an_audit_ref_that_only_audit_opens(world: World) -> None:
    tokens = await world.tokens(await world.register_customer())

    refs = [open_ref(world.ring("audit"), "audit", tokens[service].audit_ref) for service in ("vault", "consent")]
    assert [SubjectRef(tokens["audit"].subject)] * 2 == refs
    assert tokens["vault"].audit_ref != tokens["consent"].audit_ref
    assert b"" == tokens["audit"].audit_ref


async def test_marketer_gets_tokens_for_broker_and_identity(world: World) -> None:
    marketer = await world.register_marketer()

    tokens = await world.tokens(marketer)

    assert {"broker": ("marketer", marketer.name), "identity": ("marketer", marketer.name)} == {
        service: (token.kind, token.subject) for service, token in tokens.items()
    }


async def test_staff_get_tokens_for_what_they_do(world: World) -> None:
    operator, importer = await world.tokens(world.operator), await world.tokens(world.importer)

    assert {"identity": "operator"} == {service: token.kind for service, token in operator.items()}
    assert {"identity": "importer", "vault": "importer"} == {service: token.kind for service, token in importer.items()}
    assert "importers/local" == importer["vault"].subject


async def test_tokens_say_when_they_end(world: World) -> None:
    request = identitypb.SignInRequest(assertion=world.assertion(world.operator))
    (token,) = (await world.anyone.SignIn(request, timeout=DEADLINE)).tokens

    assert world.clock.now() + timedelta(minutes=5) == token.expire_time.ToDatetime(world.clock.now().tzinfo)


async def test_assertion_works_once(world: World) -> None:
    assertion = world.assertion(world.operator)
    request = identitypb.SignInRequest(assertion=assertion)

    calls = [world.anyone.SignIn(request, timeout=DEADLINE) for _ in range(8)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)

    assert 1 == sum(isinstance(outcome, identitypb.SignInResponse) for outcome in outcomes)
    assert Unauthenticated is type(await refusal(world, assertion))


async def test_two_parties_may_choose_the_same_jti(world: World) -> None:
    for party in (world.operator, world.importer):
        request = identitypb.SignInRequest(assertion=world.assertion(party, "the same"))
        assert (await world.anyone.SignIn(request, timeout=DEADLINE)).tokens


async def test_every_refusal_looks_alike(world: World) -> None:
    customer, marketer = await world.register_customer(), await world.register_marketer()
    await world.open_imported("may", ["r"])
    ((unclaimed,),) = await rows(world, "SELECT customer FROM customers WHERE public_key IS NULL")
    wrong = Signer(b"w" * 32)
    now = world.clock.now()
    assertions = [
        make_assertion(wrong, customer.name, "1", now),
        make_assertion(wrong, marketer.name, "1", now),
        make_assertion(wrong, f"customers/{unclaimed}", "1", now),
        make_assertion(wrong, "customers/" + "a" * 26, "1", now),
        make_assertion(wrong, "operators/local", "1", now),
        make_assertion(wrong, "operators/other", "1", now),
        make_assertion(wrong, "\x00", "1", now),
        make_assertion(customer.signer, customer.name, "1", now - timedelta(seconds=61)),
        make_assertion(customer.signer, customer.name, "1", now + timedelta(seconds=61)),
        make_assertion(customer.signer, marketer.name, "1", now),
        "not.a.statement",
        "x",
    ]
    faults = [await refusal(world, assertion) for assertion in assertions]

    assert {(Unauthenticated, Unauthenticated().message, ())} == {
        (type(fault), fault.message, tuple(fault.metadata)) for fault in faults
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "parley.vault"}, {"iss": "operators/other"}, {"jti": 1}, {"exp": 10**400}, {"exp": "soon"},
        {"exp": 4_000_000_000}, {"iat": 1.5, "exp": 10**400}, {"sub": ["operators/local"]}, {"sub": None},
    ],
    ids=str,
)  # fmt: skip
async def test_signed_but_wrong_assertion_is_refused(world: World, changes: dict[str, object]) -> None:
    assertion = signed(world.operator, claims(world, world.operator, **changes))

    assert Unauthenticated is type(await refusal(world, assertion))


async def test_statement_of_another_kind_signs_nobody_in(world: World) -> None:
    statement = sign_statement("token", claims(world, world.operator), world.operator.signer)

    assert Unauthenticated is type(await refusal(world, statement))


async def test_jti_that_is_no_unicode_is_as_good_as_any(world: World) -> None:
    assertion = signed(world.operator, claims(world, world.operator, jti="\ud800"))

    assert (await world.anyone.SignIn(identitypb.SignInRequest(assertion=assertion), timeout=DEADLINE)).tokens


async def test_deeply_nested_statement_is_refused_like_any_other(world: World) -> None:
    header = base64.urlsafe_b64encode(b'{"alg":"EdDSA","typ":"parley-assertion+jws"}').decode().rstrip("=")
    deep = base64.urlsafe_b64encode(b"[" * 2900).decode().rstrip("=")

    assert Unauthenticated is type(await refusal(world, f"{header}.{deep}.AAAA"))
    assert Unauthenticated is type(await refusal(world, f"{deep}.AAAA.AAAA"[:4096]))


async def test_suspended_marketer_cannot_sign_in_and_is_told_why_if_it_proves_who_it_is(world: World) -> None:
    marketer = await world.register_marketer()
    await world.update(marketer, suspended=True)

    assertion = world.assertion(marketer)
    assert [MarketerSuspended, Unauthenticated] == [type(await refusal(world, assertion)) for _ in range(2)]
    assert Unauthenticated is type(await refusal(world, assertion[:-8] + "AAAAAAAA"))
    await world.update(marketer, suspended=False)
    assert {"broker", "identity"} == set(await world.sign_in(marketer))


async def test_used_assertions_are_forgotten_once_they_have_expired(world: World) -> None:
    await world.sign_in(world.operator)
    count = "SELECT count(*) FROM used_assertions"

    async with Database.open(world.dsn, application_name="test") as db:
        upkeep = Upkeep(Store(db), world.clock, logs.logger("identity", io.StringIO()))
        world.clock.move(timedelta(minutes=20))  # a process whose clock is so far ahead of another's
        await upkeep.turn()
        assert [(1,)] == await rows(world, count)
        world.clock.move(timedelta(minutes=1))
        await upkeep.turn()
        assert [(0,)] == await rows(world, count)
