"""Accounts: registered, imported, claimed."""

import asyncio
from datetime import timedelta

import asyncpg
import pytest

from parley.identity.v1 import identity_pb2 as identitypb
from parley.identity.v1.identity_events_pb2 import AccountOpened
from parley_crypto.commitment import unseal_opening
from parley_crypto.signing import Signer
from parley_crypto.subject_ref import SubjectRef, open_ref
from parley_identity.faults import ClaimCodeInvalid, ImportNotFound, PublicKeyInvalid
from parley_kit.faults import CallerNotAllowed, RequestIdReused, Unauthenticated
from tests.support.calls import fault_of, request_id
from tests.support.identity import DEADLINE, Party, World, events, rows

OWNER = Signer(b"o" * 32)
STRANGER = Signer(b"s" * 32)


async def notes(world: World) -> list[bytes]:
    """Details of the accounts' notes, in order, as audit reads them."""
    opened = [AccountOpened.FromString(event.payload) for event in await events(world, "AccountOpened")]
    return [unseal_opening(world.sealer(), event.note.sealed_opening)[0].detail for event in opened]


async def test_registered_customer_is_known_to_each_service_by_another_id(world: World) -> None:
    customer = await world.register_customer()
    tokens = await world.tokens(customer)

    ids = {customer.name.removeprefix("customers/"), *(token.subject for token in tokens.values())}
    assert (4, {26}) == (len(ids), {len(id_) for id_ in ids})


async def test_same_request_five_times_at_once_opens_one_account(world: World) -> None:
    request = identitypb.RegisterCustomerRequest(public_key=OWNER.public_key, request_id=request_id())

    calls = [world.anyone.RegisterCustomer(request, timeout=DEADLINE) for _ in range(5)]
    answers = await asyncio.gather(*calls)

    assert len({answer.customer for answer in answers}) == 1
    assert len(await rows(world, "SELECT customer FROM customers")) == 1
    assert len(await notes(world)) == 1


async def test_request_ids_of_two_strangers_never_meet(world: World) -> None:
    shared = request_id()
    requests = [
        identitypb.RegisterCustomerRequest(public_key=who.public_key, request_id=shared) for who in (OWNER, STRANGER)
    ]
    first, second = [await world.anyone.RegisterCustomer(request, timeout=DEADLINE) for request in requests]

    assert first.customer != second.customer


@pytest.mark.parametrize(
    "key", [bytes(32), b"\x01" + bytes(31), b"\xff" * 32, b"short"], ids=["zero", "identity", "high", "short"]
)
async def test_key_that_proves_nothing_is_refused(world: World, key: bytes) -> None:
    register = identitypb.RegisterCustomerRequest(public_key=key, request_id=request_id())
    claim = identitypb.ClaimAccountRequest(claim_code="A" * 20, public_key=key, request_id=request_id())

    assert PublicKeyInvalid is type(await fault_of(world.anyone.RegisterCustomer(register, timeout=DEADLINE)))
    assert PublicKeyInvalid is type(await fault_of(world.anyone.ClaimAccount(claim, timeout=DEADLINE)))
    assert await rows(world, "SELECT customer FROM customers") == []


async def test_opened_account_is_noted_for_audit_alone(world: World) -> None:
    customer = await world.register_customer()
    audit_id = (await world.tokens(customer))["audit"].subject
    (event,) = await events(world, "AccountOpened")

    assert await notes(world) == [
        b'{"imported":false,"kind":"identity:account:opened","time":"2026-05-04T03:02:01.000000Z"}'
    ]
    _, ref = unseal_opening(world.sealer(), AccountOpened.FromString(event.payload).note.sealed_opening)
    assert SubjectRef(audit_id) == open_ref(world.ring("audit"), "audit", ref)


async def test_repeated_row_answers_with_the_same_account(world: World) -> None:
    first = await world.open_imported("may", ["r1", "r2"])
    again = await world.open_imported("may", ["r2", "r3", "r1", "r2"])

    subjects = [open_ref(world.ring("vault"), "vault", account.vault_ref) for account in [*first, *again]]
    assert [subjects[1], subjects[3], subjects[0], subjects[1]] == subjects[2:]
    assert SubjectRef(subjects[0].subject, "local") == subjects[0]
    assert len(await rows(world, "SELECT customer FROM customers")) == 3


async def test_rows_opened_twice_at_once_have_one_account_each(world: World) -> None:
    keys = [f"r{number}" for number in range(50)]
    answers = await asyncio.gather(*(world.open_imported("may", order) for order in (keys, keys[::-1], keys)))

    assert len(await rows(world, "SELECT customer FROM customers")) == 50
    assert [len(answer) for answer in answers] == [50, 50, 50]


async def test_same_row_key_of_another_import_is_another_customer(world: World) -> None:
    (may,), (june,) = await world.open_imported("may", ["r"]), await world.open_imported("june", ["r"])

    opened = [open_ref(world.ring("vault"), "vault", account.vault_ref) for account in (may, june)]
    assert opened[0].subject != opened[1].subject


async def test_import_that_was_broken_off_is_taken_up_where_it_stopped(world: World) -> None:
    await world.open_imported("may", ["r1", "r2"])
    await world.complete_imported("may", ["r1"])

    resumed = await world.open_imported("may", ["r1", "r2"])

    assert [account.complete for account in resumed] == [True, False]
    await world.complete_imported("may", ["r1", "r2"])
    assert len(await notes(world)) == 2  # an event an account, however often it is completed


async def test_completing_what_was_never_opened_changes_nothing(world: World) -> None:
    await world.open_imported("may", ["r1"])

    assert ImportNotFound is type(await fault_of(world.complete_imported("may", ["r1", "r2"])))
    assert ImportNotFound is type(await fault_of(world.complete_imported("june", ["r1"])))
    assert await rows(world, "SELECT complete FROM customers") == [(False,)]


async def test_claim_code_gives_the_account_to_its_owner(world: World) -> None:
    (account,) = await world.open_imported("may", ["r1"])
    (code,) = await world.complete_imported("may", ["r1"])

    owner = await world.claim(code.lower().replace("-", " "), OWNER)

    subject = open_ref(world.ring("vault"), "vault", account.vault_ref).subject
    assert subject == await world.vault_subject(owner)
    assert b"identity:account:claimed" in (await notes(world))[-1]


async def test_claim_code_works_once(world: World) -> None:
    await world.open_imported("may", ["r1"])
    (code,) = await world.complete_imported("may", ["r1"])
    await world.claim(code, OWNER)

    assert ClaimCodeInvalid is type(await fault_of(world.claim(code, STRANGER)))


async def test_account_with_an_owner_is_never_given_to_another(world: World) -> None:
    await world.open_imported("may", ["r1"])
    (code,) = await world.complete_imported("may", ["r1"])
    await rows(world, "CREATE TABLE kept AS SELECT * FROM claim_codes")
    await world.claim(code, OWNER)
    await rows(world, "INSERT INTO claim_codes SELECT * FROM kept")

    assert ClaimCodeInvalid is type(await fault_of(world.claim(code, STRANGER)))
    assert [(OWNER.public_key,)] == await rows(world, "SELECT public_key FROM customers")


async def test_retried_claim_is_answered_again(world: World) -> None:
    await world.open_imported("may", ["r1"])
    (code,) = await world.complete_imported("may", ["r1"])
    asked = request_id()

    assert (await world.claim(code, OWNER, asked)).name == (await world.claim(code, OWNER, asked)).name
    assert RequestIdReused is type(await fault_of(world.claim("A" * 20, OWNER, asked)))


async def test_of_many_claims_at_once_one_succeeds(world: World) -> None:
    await world.open_imported("may", ["r1"])
    (code,) = await world.complete_imported("may", ["r1"])

    claims = [world.claim(code, Signer(bytes([number]) * 32)) for number in range(1, 9)]
    outcomes = await asyncio.gather(*claims, return_exceptions=True)

    assert sum(isinstance(outcome, Party) for outcome in outcomes) == 1


@pytest.mark.parametrize("code", ["A" * 20, "not a code"])
async def test_whatever_is_wrong_with_a_code_the_answer_is_the_same(world: World, code: str) -> None:
    fault = await fault_of(world.claim(code, OWNER))

    assert (ClaimCodeInvalid().message, {}) == (fault.message, fault.metadata)


async def test_claim_code_expires(world: World) -> None:
    await world.open_imported("may", ["r1"])
    (code,) = await world.complete_imported("may", ["r1"])

    world.clock.move(timedelta(days=30))

    assert ClaimCodeInvalid is type(await fault_of(world.claim(code, OWNER)))


async def test_newer_code_ends_the_older(world: World) -> None:
    await world.open_imported("may", ["r1"])
    (older,) = await world.complete_imported("may", ["r1"])
    (newer,) = await world.complete_imported("may", ["r1"])

    assert ClaimCodeInvalid is type(await fault_of(world.claim(older, OWNER)))
    assert (await world.claim(newer, OWNER)).name.startswith("customers/")


async def test_claimed_account_gets_no_more_codes(world: World) -> None:
    await world.open_imported("may", ["r1", "r2"])
    codes = await world.complete_imported("may", ["r1", "r2"])
    await world.claim(codes[0], OWNER)

    again = await world.complete_imported("may", ["r1", "r2"])

    assert [again[0], bool(again[1])] == ["", True]
    assert [(1,)] == await rows(world, "SELECT count(*) FROM claim_codes")


async def test_code_replaced_while_its_account_was_waited_for_is_refused(world: World) -> None:
    await world.open_imported("may", ["r1"])
    (older,) = await world.complete_imported("may", ["r1"])
    connection = await asyncpg.connect(world.dsn)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("SELECT 1 FROM customers FOR UPDATE")

    claiming = asyncio.ensure_future(fault_of(world.claim(older, OWNER)))
    await world.until_blocked()
    await connection.execute("UPDATE claim_codes SET code_hash = 'another'")
    await transaction.commit()
    await connection.close()

    assert ClaimCodeInvalid is type(await claiming)
    assert await rows(world, "SELECT public_key FROM customers") == [(None,)]


async def test_only_importers_import(world: World) -> None:
    request = identitypb.OpenImportedAccountsRequest(**{"import": "may"}, row_keys=["r"])
    metadata = await world.metadata(world.operator)

    assert Unauthenticated is type(await fault_of(world.anyone.OpenImportedAccounts(request, timeout=DEADLINE)))
    refused = world.anyone.OpenImportedAccounts(request, metadata=metadata, timeout=DEADLINE)
    assert CallerNotAllowed is type(await fault_of(refused))


async def test_thousand_rows_are_opened_and_completed_in_one_call_each(world: World) -> None:
    keys = [f"row {number}" for number in range(1000)]

    await world.open_imported("may", keys)
    codes = await world.complete_imported("may", keys)

    assert len(set(codes)) == 1000
    assert await rows(world, "SELECT count(*) FROM customers WHERE complete") == [(1000,)]
