"""The story itself: told to whoever watches, lived by real services."""

import asyncio
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import grpc
from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from parley_client import Client, Condition, Delivery, Kind
from parley_node import people
from parley_node.cli.wallet import CustomerFile, MarketerFile
from parley_node.conditions_text import parse_conditions
from parley_node.demo.crowd import Crowd, Member, Temper, standing_terms
from parley_node.demo.population import write_population
from parley_node.home import Home
from parley_node.importing.mapping import Campaign, ColumnMapping, MappingInvalid, Row, read_mapping, read_rows
from parley_node.importing.run import import_customers
from parley_node.node import Options, fast_notices, run
from parley_node.verify import verify_files
from parley_rpc.logs import logger
from parley_terms.purposes import DPV
from parley_terms.terms import each_criterion
from parley_terms.values import Catalogue

_SEED = 7
_CUSTOMERS = 1000
_SHOWN = 5
_QUIET_S = 1.5
_OWN_MAPPING = Path(__file__).with_name("population.toml")


@dataclass(frozen=True)
class Source:
    """Whose story: a population in a CSV file, and what its columns mean."""

    customers: Path
    mapping: Path


@dataclass
class Story:
    """One telling. ``home`` is made anew each time."""

    home: Home
    console: Console
    source: Source | None
    options: Options = field(default_factory=lambda: Options(port=0, http_port=0, settings=fast_notices()))

    async def tell(self) -> None:
        """Tell it, from an empty home to what to try next. Raises MappingInvalid for a file that doesn't fit."""
        started = time.monotonic()
        self.home.empty()
        self._title("1. Parley starts", "identity, vault, consent, broker and audit, on a real PostgreSQL and Valkey")
        async with AsyncExitStack() as stack:
            log = stack.enter_context((self.home.root / "parley.log").open("w"))
            node = await stack.enter_async_context(run(self.home, self.options, logger("node", stream=log)))
            address = node.running.address
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
            self.console.print(f"   gRPC on [bold]{address}[/], the public log on [bold]{node.running.http}[/]")
            mapping, rows, names = await self._read(address)
            assert mapping.campaign is not None
            asked = parse_conditions(mapping.campaign.where, names)
            members = await self._people(address, channel, mapping, rows, asked)
            client = await stack.enter_async_context(await self._marketer(address))
            await self._campaign(client, Crowd(address, channel), mapping.campaign, asked, members)
            await self._withdrawal(client, address, channel, mapping.campaign)
        self._ending(time.monotonic() - started)

    async def _read(self, address: str) -> tuple[ColumnMapping, list[Row], Catalogue]:
        source = self.source
        if source is None:
            source = Source(self.home.root / "population.csv", _OWN_MAPPING)
            write_population(source.customers, _CUSTOMERS, _SEED)
        mapping = read_mapping(source.mapping)
        if mapping.campaign is None:
            raise MappingInvalid(f"{source.mapping}: say in [campaign] what the demo asks")
        async with people.staff(address, self.home, "importer") as importer:
            names = await people.catalogue(importer)
        rows, problems = read_rows(source.customers, mapping, names)
        if problems:
            raise MappingInvalid("\n".join(str(problem) for problem in problems[:20]))
        return mapping, rows, names

    async def _people(
        self,
        address: str,
        channel: grpc.aio.Channel,
        mapping: ColumnMapping,
        rows: Sequence[Row],
        asked: Condition,
    ) -> list[Member]:
        self._title(f"2. {len(rows):,} customers", "imported, then each claims their own bank with a one-time code")
        crowd, campaign = Crowd(address, channel), mapping.campaign
        assert campaign is not None
        attributes = sorted({test.attribute for test in each_criterion(asked.criteria)})
        allowed = standing_terms([DPV + name for name in campaign.purposes], [*campaign.ask, *attributes])
        with self._progress() as progress:
            bar = progress.add_task("imported, encrypted under a key of their own", total=len(rows))
            async with people.staff(address, self.home, "importer") as importer:
                codes = await import_customers(importer, mapping.name, rows, lambda n: progress.advance(bar, n))
            claimed = progress.add_task("accounts claimed by their owners", total=len(codes))
            members = await crowd.claim(codes, _SEED, lambda: progress.advance(claimed))
            ready = progress.add_task("switches and rules set by each", total=len(members))
            await crowd.settle_in(members, attributes, allowed, lambda: progress.advance(ready))
        rules = Counter(member.temper for member in members)
        allow, refuse = rules[Temper.ALLOWS], rules[Temper.REFUSES]
        self.console.print(
            f"   {allow} allow this by a rule, {refuse} refuse it by a rule, the others want to be asked"
        )
        return members

    async def _marketer(self, address: str) -> Client:
        self._title(
            "3. A marketer", "registered and verified by the operator; it brings a key to sign and a key to seal to"
        )
        wallet = MarketerFile(self.home, "shop")
        signing_key, sealing_key = wallet.public_keys()
        async with people.staff(address, self.home, "operator") as operator:
            marketer = await people.register_marketer(
                operator,
                name="Trail & Summit",
                entity="Trail & Summit Ltd",
                contact="privacy@trail-and-summit.example",
                level=2,
                signing_key=signing_key,
                sealing_key=sealing_key,
            )
        wallet.keep(marketer.name, address)
        self.console.print(f"   [bold]{marketer.display_name}[/] is {marketer.name}")
        return Client(wallet.settings(address))

    async def _campaign(
        self, client: Client, crowd: Crowd, campaign: Campaign, asked: Condition, members: Sequence[Member]
    ) -> None:
        self._title("4. A campaign", f"“{campaign.text}”")
        self.console.print(
            f"   to whom: [cyan]{' and '.join(campaign.where)}[/]; asks for: [cyan]{', '.join(campaign.ask)}[/]"
        )
        await client.create_exchange(
            purposes=campaign.purposes,
            ask=campaign.ask,
            where=asked,
            offer_text=campaign.text,
            valid_for=timedelta(days=60),
            decide_within=timedelta(days=14),
        )
        self._early = await self._deliveries(client)
        with self._progress() as progress:
            bar = progress.add_task("customers look into their inboxes", total=len(members))
            offers = await crowd.answer(members, lambda: progress.advance(bar))
        answers = Counter(member.temper for member in members if member.name in offers)
        releases = [*self._early, *await self._deliveries(client)]
        self._released(releases, answers, len(offers))
        accepted = [member for member in members if member.name in offers and member.temper is Temper.ACCEPTS]
        self._member, self._releases = accepted[0], releases
        CustomerFile(self.home, "me").adopt(self._member.name, self._member.signer.seed)

    def _released(self, releases: Sequence[Delivery], answers: Counter[Temper], offers: int) -> None:
        opened = [delivery.open() for delivery in releases]
        told = Table(
            title="what happened, and what the marketer can tell of it", title_style="bold", title_justify="left"
        )
        for column in ("to the customers", "", "to the marketer", ""):
            told.add_column(column, justify="right" if not column else "left")
        told.add_row("offers in inboxes", str(offers), "releases, under pseudonyms", str(len(releases)))
        told.add_row("accepted", str(answers[Temper.ACCEPTS]), "refused", "can't tell")
        told.add_row("declined", str(answers[Temper.DECLINES]), "undecided", "can't tell")
        told.add_row("left unread", str(answers[Temper.LEAVES]), "nobody there", "can't tell")
        self.console.print(told)
        table = Table(title="opened with the marketer's own key", title_style="bold", title_justify="left")
        for column in ("pseudonym", "values", "answers"):
            table.add_column(column)
        for release in opened[:_SHOWN]:
            values = ", ".join(f"{name.partition('.')[2]} {value}" for name, value in release.values.items())
            yes = sum(release.answers.values())
            table.add_row(release.pseudonym, values, f"{yes} of {len(release.answers)} questions: yes")
        self.console.print(table)

    async def _withdrawal(self, client: Client, address: str, channel: grpc.aio.Channel, campaign: Campaign) -> None:
        self._title("5. Somebody changes their mind", "and from the answer on, nothing more is released")
        member = self._member
        async with people.customer(address, member.name, member.signer, channel) as customer:
            consent = (await customer.consents())[0]
            before = await self._again(client, consent.pseudonym, campaign)
            withdrawn = await customer.withdraw(consent.name)
            after = await self._again(client, consent.pseudonym, campaign)
            self.console.print(f"   asked before: [green]{'a release' if before else 'nothing'}[/]")
            self.console.print(
                f"   withdrawn; the answer names all {len(withdrawn.consent.settlements)} releases ever made under this consent"
            )
            self.console.print(f"   asked after:  [red]{'a release' if after else 'nothing'}[/]")
            history = await self._logged(customer)
        notices = [one for one in await self._deliveries(client, Kind.NOTICE) if one.kind is Kind.NOTICE]
        if notices:
            self.console.print(f"   the marketer's own notice, some time later: [bold]{notices[0].notice().notice}[/]")
        await self._receipts(client, history)

    async def _again(self, client: Client, pseudonym: str, campaign: Campaign) -> Delivery | None:
        answer = await client.ask_one(
            pseudonym,
            purposes=campaign.purposes,
            ask=campaign.ask,
            valid_for=timedelta(days=30),
            decide_within=timedelta(days=7),
        )
        if answer.delivery is not None:
            await client.acknowledge(answer.delivery)
        return answer.delivery

    async def _logged(self, customer: people.Customer) -> list[str]:
        """Wait until the withdrawal is in the customer's history; what is there, newest first."""
        for _ in range(100):
            kinds = [entry.kind for entry in await customer.history()]
            if "consent:consent:withdrawn" in kinds:
                return kinds
            await asyncio.sleep(0.1)
        return []

    async def _receipts(self, client: Client, history: Sequence[str]) -> None:
        self._title("6. Receipts", "anyone who holds one can check it, offline, with standard tools")
        directory = self.home.root / "receipts" / "release"
        policy, proof, entry, opening = await client.save_receipt(self._releases[0], directory)
        receipt = verify_files(policy, proof, entry, opening)
        leaf = f"leaf {receipt.index:,} of a log of {receipt.checkpoint.size:,}"
        self.console.print(f"   a release's receipt, from four files alone: [green]valid[/], {leaf}")
        changed = bytearray(opening.read_bytes())
        changed[len(changed) // 2] ^= 1
        forged = directory.parent / "changed-opening.json"
        forged.write_bytes(changed)
        self.console.print(f"   the same with one bit changed: [red]{self._refused(policy, proof, entry, forged)}[/]")
        self.console.print(f"   and the customer's own history says: {', '.join(history[:6])}, …")

    def _refused(self, *files: Path) -> str:
        try:
            verify_files(*files)
        except Exception as error:  # noqa: BLE001 - whatever it says is the story
            return f"refused ({error})"
        return "accepted"

    async def _deliveries(self, client: Client, until: Kind | None = None) -> list[Delivery]:
        """What the feed brings until it is quiet (or until one of a kind came, ten seconds at most); acknowledged."""
        found: list[Delivery] = []
        feed = client.deliveries()
        try:
            async with asyncio.timeout(10 if until else 120):
                while True:
                    found.append(await asyncio.wait_for(anext(feed), None if until else _QUIET_S))
                    if found[-1].kind is until:
                        break
        except TimeoutError:
            pass
        finally:
            await feed.aclose()
        if found:
            await client.acknowledge(*found)
        return found

    def _title(self, title: str, subtitle: str) -> None:
        self.console.print()
        self.console.print(f"[bold cyan]{title}[/]  [dim]{subtitle}[/]")

    def _progress(self) -> Progress:
        columns = (
            TextColumn("   {task.description:<46}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        return Progress(*columns, console=self.console)

    def _ending(self, seconds: float) -> None:
        home = self.home.root
        activate = "" if shutil.which("parley") else f"[bold]source {sys.prefix}/bin/activate[/]\n   first of all\n"
        self.console.print()
        self.console.print(
            Panel(
                f"{activate}[bold]parley verify {home}/receipts/release[/]\n   check that receipt again, with the network off\n"
                f"[bold]parley up --home {home}[/]\n   run this Parley again, with everything in it\n"
                f"   and then, elsewhere: export PARLEY_HOME={home}\n"
                "[bold]parley customer history[/]\n   what the customer who changed their mind sees: who got what, when, why\n"
                "[bold]parley customer --help[/] and [bold]parley marketer --help[/]\n   live the story by hand\n"
                "[bold]docs/architecture.md[/]\n   who knows what, and how it stays that way",
                title=f"That was one exchange, in {seconds:.0f} s. What to try next",
                title_align="left",
            )
        )


def fresh(home: Home) -> Home:
    """Where a telling lives: below the home, made anew each time."""
    return replace(home, root=home.root / "demo")
