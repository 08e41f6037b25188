"""The wire: proto to domain and back."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from parley.common.v1 import terms_pb2 as termspb
from parley.vault.v1 import vault_pb2 as vaultpb
from parley.vault.v1 import vault_pb2_grpc as vaultgrpc
from parley_crypto.keyring import KeyRing
from parley_crypto.subject_ref import RefInvalid, open_ref
from parley_db.database import Tx
from parley_db.mutations import Mutations
from parley_kit import pages
from parley_kit.faultpoints import reach
from parley_kit.faults import InvalidRequest, Violation
from parley_kit.offload import work
from parley_rpc.principal import caller
from parley_terms.terms import Criteria, Level
from parley_terms.values import Attribute, Catalogue
from parley_terms.wire import criteria_asked, timestamp
from parley_vault.commands import Acts, Imports
from parley_vault.domain.items import Entry, Item, Provenance, canonical
from parley_vault.domain.releasing import Refusal
from parley_vault.events import Customer
from parley_vault.finding import Finder
from parley_vault.releases import READER, Asked, Releases
from parley_vault.safe import Place
from parley_vault.searching import Matcher, Search

_CANDIDATES = 1_000
"""On a page of which no size is asked."""


@dataclass(frozen=True)
class VaultServicer(vaultgrpc.VaultServiceServicer):
    """Serves ``parley.vault.v1.VaultService``."""

    mutations: Mutations
    catalogue: Catalogue
    acts: Acts
    imports: Imports
    finder: Finder
    matcher: Matcher
    releases: Releases
    refs: KeyRing

    async def ListAttributes(self, _request: vaultpb.ListAttributesRequest, _context: Any) -> Any:
        """Answer the catalogue."""
        return vaultpb.ListAttributesResponse(attributes=[_attribute_to(one) for one in self.catalogue.values()])

    async def PutItems(self, request: vaultpb.PutItemsRequest, _context: Any) -> Any:
        """Put items."""
        who = _customer()
        values = canonical(self.catalogue, _entered(who, request))

        async def body(tx: Tx) -> vaultpb.PutItemsResponse:
            return vaultpb.PutItemsResponse(versions=_versions(await self.acts.put(tx, who, values)))

        async with self.mutations.turn(who.subject), self.finder.changing([who.subject]):
            return await self.mutations.once(who.subject, request, vaultpb.PutItemsResponse, body)

    async def GetItem(self, request: vaultpb.GetItemRequest, _context: Any) -> Any:
        """Answer an item."""
        return _item_to(await self.acts.get(_customer(), _attribute(request.name)))

    async def ListItems(self, request: vaultpb.ListItemsRequest, _context: Any) -> Any:
        """Answer a page of items."""
        size = pages.size(request.page_size)
        items = await self.acts.page(_customer(), _after(request.page_token), size + 1)
        token = pages.encode(items[size - 1].attribute.encode()) if len(items) > size else ""
        return vaultpb.ListItemsResponse(items=[_item_to(one) for one in items[:size]], next_page_token=token)

    async def ListItemVersions(self, request: vaultpb.ListItemVersionsRequest, _context: Any) -> Any:
        """Answer an item's history."""
        items = await self.acts.versions(_customer(), _attribute(request.name))
        return vaultpb.ListItemVersionsResponse(items=[_item_to(one) for one in items])

    async def DeleteItem(self, request: vaultpb.DeleteItemRequest, _context: Any) -> Any:
        """Delete an item with its history."""
        who, attribute = _customer(), _attribute(request.name)

        async def body(tx: Tx) -> vaultpb.DeleteItemResponse:
            await self.acts.delete(tx, who, attribute)
            return vaultpb.DeleteItemResponse()

        async with self.mutations.turn(who.subject), self.finder.changing([who.subject]):
            return await self.mutations.once(who.subject, request, vaultpb.DeleteItemResponse, body)

    async def SetDiscoverable(self, request: vaultpb.SetDiscoverableRequest, _context: Any) -> Any:
        """Set an item's switch."""
        who, attribute = _customer(), _attribute(request.name)
        level = Level(request.discoverable_to) if request.discoverable_to else None

        async def body(tx: Tx) -> vaultpb.Item:
            await self.acts.set_discoverable(tx, who, attribute, level)
            return vaultpb.Item()  # the answer is kept for a repeat, and holds no value

        async with self.mutations.turn(who.subject), self.finder.changing([who.subject]):
            await self.mutations.once(who.subject, request, vaultpb.Item, body)
        return _item_to(await self.acts.get(who, attribute))

    async def ImportItems(self, request: vaultpb.ImportItemsRequest, _context: Any) -> Any:
        """Import items."""
        count = sum(len(entry.items) for entry in request.entries)
        subjects = [self._subject(entry.vault_ref, index) for index, entry in enumerate(request.entries)]
        values = await work(count, lambda: canonical(self.catalogue, _all_imported(subjects, request)))

        async def body(tx: Tx) -> vaultpb.ImportItemsResponse:
            return vaultpb.ImportItemsResponse(new_versions=await self.imports.put(tx, subjects, values))

        # The index holds owners' items only: it stays as it is.
        return await self.mutations.once(caller().id, request, vaultpb.ImportItemsResponse, body)

    async def Match(self, request: vaultpb.MatchRequest, _context: Any) -> Any:
        """Answer a page of candidates."""
        size = pages.size(request.page_size or _CANDIDATES)
        criteria = _criteria(request.criteria)
        search = Search(request.marketer_card, request.exchange, criteria, size, request.page_token)
        refs, token = await self.matcher.match(search)
        await reach("vault.after_match")
        return vaultpb.MatchResponse(candidate_refs=refs, next_page_token=token)

    async def Release(self, request: vaultpb.ReleaseRequest, _context: Any) -> Any:
        """Open what permits allow."""
        asked = [Asked(entry.vault_ref, entry.permit) for entry in request.entries]
        outcomes = await self.releases.release(request.batch, asked)
        await reach("vault.after_release")
        return vaultpb.ReleaseResponse(outcomes=[_outcome_to(outcome) for outcome in outcomes])

    def _subject(self, sealed: bytes, index: int) -> str:
        with suppress(RefInvalid):
            ref = open_ref(self.refs, READER, sealed)
            if not (ref.pseudonym or ref.marketer):  # an introduction's is broker's to use: here it is none
                return ref.subject
        raise InvalidRequest(violations=[Violation(f"entries[{index}].vault_ref", "is no importer's reference")])


def _customer() -> Customer:
    principal = caller()
    return Customer(principal.id, principal.audit_ref)


def _entered(who: Customer, request: vaultpb.PutItemsRequest) -> list[Entry]:
    return [
        Entry(f"items[{index}]", who.subject, item.attribute, item.value, Provenance.ENTERED)
        for index, item in enumerate(request.items)
    ]


def _all_imported(subjects: Sequence[str], request: vaultpb.ImportItemsRequest) -> list[Entry]:
    return [
        _imported(f"entries[{index}].items[{place}]", subject, item)
        for index, (subject, entry) in enumerate(zip(subjects, request.entries, strict=True))
        for place, item in enumerate(entry.items)
    ]


def _imported(path: str, subject: str, item: vaultpb.ImportedItem) -> Entry:
    provenance = Provenance(item.provenance)
    if provenance not in (Provenance.IMPORTED, Provenance.OBSERVED):
        raise InvalidRequest(violations=[Violation(f"{path}.provenance", "is imported or observed")])
    return Entry(path, subject, item.attribute, item.value, provenance)


def _criteria(message: termspb.Criteria) -> Criteria:
    try:
        return criteria_asked(message)
    except ValueError as error:
        raise InvalidRequest(violations=[Violation("criteria", str(error))]) from None


def _attribute(name: str) -> str:
    return name.removeprefix("items/")


def _versions(places: Sequence[Place]) -> list[vaultpb.ItemVersion]:
    return [vaultpb.ItemVersion(name=f"items/{place.attribute}", version=place.version) for place in places]


def _item_to(item: Item) -> vaultpb.Item:
    return vaultpb.Item(
        name=f"items/{item.attribute}",
        attribute=item.attribute,
        value=item.value,
        version=item.version,
        provenance=vaultpb.Provenance.ValueType(item.provenance),
        discoverable_to=termspb.VerificationLevel.ValueType(item.level or 0),
        create_time=timestamp(item.created_at),
    )


def _attribute_to(attribute: Attribute) -> vaultpb.Attribute:
    return vaultpb.Attribute(
        name=attribute.name,
        description=attribute.description,
        type=vaultpb.ValueType.ValueType(attribute.type),
        unit=attribute.unit,
        choices=attribute.choices,
        pattern=attribute.pattern,
        min=attribute.min,
        max=attribute.max,
        category=attribute.category,
        least_level=termspb.VerificationLevel.ValueType(attribute.least_level),
    )


def _outcome_to(outcome: bytes | Refusal) -> vaultpb.ReleaseOutcome:
    if isinstance(outcome, Refusal):
        return vaultpb.ReleaseOutcome(refusal=outcome)
    return vaultpb.ReleaseOutcome(sealed_release=outcome)


def _after(token: str) -> str:
    end = pages.decode(token)
    if not (end.isascii() and end.decode("latin-1").isprintable()):  # no attribute's name, and to PostgreSQL no text
        raise pages.not_ours()
    return end.decode()
