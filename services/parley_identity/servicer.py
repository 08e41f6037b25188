"""Identity's RPCs: from the wire to a command and back, a few lines each."""

from dataclasses import dataclass
from typing import Any

from parley.identity.v1 import identity_pb2 as identitypb
from parley.identity.v1 import identity_pb2_grpc
from parley_crypto.signing import key_id
from parley_db.database import Tx
from parley_db.mutations import Mutations
from parley_identity.commands.accounts import Accounts
from parley_identity.commands.introductions import Introductions
from parley_identity.commands.marketers import Marketers
from parley_identity.commands.signin import SignIn
from parley_identity.domain.marketers import KeyUse, Marketer
from parley_identity.keys import Naming
from parley_identity.wire import introduction_to, level_from, marketer_to, profile_from, token_to
from parley_kit.clock import Clock
from parley_rpc.principal import caller


@dataclass(frozen=True)
class IdentityServicer(identity_pb2_grpc.IdentityServiceServicer):
    """``parley.identity.v1.IdentityService``; the proto says what each method does."""

    accounts: Accounts
    sign_in: SignIn
    marketers: Marketers
    introductions: Introductions
    naming: Naming
    mutations: Mutations
    clock: Clock
    key_set: str

    async def RegisterCustomer(
        self, request: identitypb.RegisterCustomerRequest, context: Any
    ) -> identitypb.RegisterCustomerResponse:
        async def body(tx: Tx) -> identitypb.RegisterCustomerResponse:
            account = await self.accounts.register(tx, request.public_key)
            return identitypb.RegisterCustomerResponse(customer=account.name)

        who = _stranger(request.public_key)
        return await self.mutations.once(who, request, identitypb.RegisterCustomerResponse, body)

    async def ClaimAccount(
        self, request: identitypb.ClaimAccountRequest, context: Any
    ) -> identitypb.ClaimAccountResponse:
        async def body(tx: Tx) -> identitypb.ClaimAccountResponse:
            account = await self.accounts.claim(tx, request.claim_code, request.public_key)
            return identitypb.ClaimAccountResponse(customer=account.name)

        who = _stranger(request.public_key)
        return await self.mutations.once(who, request, identitypb.ClaimAccountResponse, body)

    async def SignIn(self, request: identitypb.SignInRequest, context: Any) -> identitypb.SignInResponse:
        issued = await self.sign_in.sign_in(request.assertion)
        return identitypb.SignInResponse(tokens=[token_to(token) for token in issued])

    async def RegisterMarketer(self, request: identitypb.RegisterMarketerRequest, context: Any) -> identitypb.Marketer:
        profile = profile_from(request)

        async def body(tx: Tx) -> identitypb.Marketer:
            return self._to(await self.marketers.register(tx, profile, request.sealing_key, request.signing_key))

        return await self.mutations.once(caller().id, request, identitypb.Marketer, body)

    async def UpdateMarketer(self, request: identitypb.UpdateMarketerRequest, context: Any) -> identitypb.Marketer:
        level = level_from(request.verification_level)
        suspended = request.suspended if request.HasField("suspended") else None

        async def body(tx: Tx) -> identitypb.Marketer:
            return self._to(await self.marketers.update(tx, _id(request.name), level, suspended))

        return await self.mutations.once(caller().id, request, identitypb.Marketer, body)

    async def AddMarketerKey(self, request: identitypb.AddMarketerKeyRequest, context: Any) -> identitypb.Marketer:
        who, use = caller().id, KeyUse(request.use)

        async def body(tx: Tx) -> identitypb.Marketer:
            return self._to(await self.marketers.add_key(tx, _id(who), use, request.public_key))

        return await self.mutations.once(who, request, identitypb.Marketer, body)

    async def GetMarketer(self, request: identitypb.GetMarketerRequest, context: Any) -> identitypb.Marketer:
        return self._to(await self.marketers.find(_id(request.name)))

    async def GetMarketerCard(
        self, request: identitypb.GetMarketerCardRequest, context: Any
    ) -> identitypb.GetMarketerCardResponse:
        return identitypb.GetMarketerCardResponse(card=await self.marketers.card(_id(request.name)))

    async def GetKeySet(self, request: identitypb.GetKeySetRequest, context: Any) -> identitypb.GetKeySetResponse:
        return identitypb.GetKeySetResponse(jwks=self.key_set)

    async def Introduce(self, request: identitypb.IntroduceRequest, context: Any) -> identitypb.IntroduceResponse:
        introduce = self.introductions.introduce
        introduced = await introduce(_id(request.marketer), request.exchange, request.candidate_refs)
        return identitypb.IntroduceResponse(introductions=[introduction_to(refs) for refs in introduced])

    async def OpenImportedAccounts(
        self, request: identitypb.OpenImportedAccountsRequest, context: Any
    ) -> identitypb.OpenImportedAccountsResponse:
        opened = await self.accounts.open_imported(caller().id, getattr(request, "import"), request.row_keys)
        return identitypb.OpenImportedAccountsResponse(
            accounts=[
                identitypb.ImportedAccount(
                    # Once its owner has claimed it, an account is theirs: the importer is given no new way to write into it, and
                    # what it was given before works no longer than until they first look.
                    vault_ref=b"" if account.public_key else self.naming.for_vault(account),
                    complete=account.complete,
                )
                for account in opened
            ]
        )

    async def CompleteImportedAccounts(
        self, request: identitypb.CompleteImportedAccountsRequest, context: Any
    ) -> identitypb.CompleteImportedAccountsResponse:
        codes = await self.accounts.complete_imported(caller().id, getattr(request, "import"), request.row_keys)
        return identitypb.CompleteImportedAccountsResponse(claim_codes=codes)

    def _to(self, marketer: Marketer) -> identitypb.Marketer:
        return marketer_to(marketer, self.clock.now())


def _stranger(public_key: bytes) -> str:
    """Whose request ids these are: strangers have no name yet, but each has a key, so that their ids never meet."""
    return f"anyone:{key_id(public_key)}"


def _id(name: str) -> str:
    return name.rpartition("/")[2]
