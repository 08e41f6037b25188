"""`parley marketer`: what a marketer's backend does, by hand, through the SDK."""

import re
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from parley_client import Client, Condition, Exchange
from parley_client.exchanges import Asked
from parley_node.cli import show
from parley_node.cli.calls import run, running
from parley_node.cli.feed import Inbox, kept, kept_rows, pseudonyms, release_row
from parley_node.cli.names import find
from parley_node.cli.options import MOST_DAYS, HomeOption, JsonOption, LevelName, MarketerOption, level_text
from parley_node.cli.receipts import refuse_taken
from parley_node.cli.stop import Stop
from parley_node.cli.terms_text import check_purposes
from parley_node.cli.wallet import MarketerFile
from parley_node.conditions_text import field_text, parse_conditions, parse_question
from parley_node.home import Home, NotRunning
from parley_node.people import catalogue, register_marketer, staff
from parley_terms.purposes import DPV
from parley_terms.terms import Criteria, Field, Form, each_criterion
from parley_terms.values import Catalogue

T = TypeVar("T")

_OPEN_DAYS = 7
_PSEUDONYM = re.compile(r"[a-z2-7]{32}")

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Act as a marketer: ask, and open what customers release."
)

Fields = Annotated[
    list[str] | None, typer.Option("--field", help="An attribute whose exact value you want; may be repeated.")
]
Questions = Annotated[
    list[str] | None,
    typer.Option("--question", help="What you want a yes or no to, such as 'profile.age at least 18'."),
]
Purposes = Annotated[list[str], typer.Option("--purpose", help="What it is for, such as Marketing (w3id.org/dpv).")]
Text = Annotated[str, typer.Option("--text", help="Your words to whoever is asked, the same for everyone.")]
Days = Annotated[int, typer.Option("--days", min=1, max=MOST_DAYS, help="How long you want to use it.")]
DecideDays = Annotated[
    int | None,
    typer.Option(
        "--decide-days", min=1, max=MOST_DAYS, help="How long an offer stays open; 7 if not given, --days at most."
    ),
]
Once = Annotated[bool, typer.Option("--once", help="For one release, not for a standing consent.")]
ExchangeName = Annotated[str, typer.Argument(metavar="EXCHANGE", help="The first letters of its name will do.")]


@asynccontextmanager
async def client(home: Path | None, me: str) -> AsyncIterator[Client]:
    """Be a marketer of a home. Raises Stop, NotRunning and SettingsInvalid."""
    chosen, now = running(home)
    async with Client(MarketerFile(chosen, me).settings(now.address)) as opened:
        yield opened


def act(home: Path | None, me: str, work: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
    """Do something as a marketer of a home. Raises Stop."""

    async def acting() -> T:
        async with client(home, me) as opened:
            return await work(opened)

    return run(acting())


@app.command()
def register(
    name: Annotated[str, typer.Argument(help="What customers shall know it by.")],
    entity: Annotated[str, typer.Option(help="The legal entity; NAME if not given.", show_default=False)] = "",
    contact: Annotated[str, typer.Option(help="Where customers can write to.")] = "privacy@marketer.example",
    level: Annotated[LevelName, typer.Option(help="How far it was checked.")] = LevelName.VERIFIED,
    me: MarketerOption = "shop",
    home: HomeOption = None,
) -> None:
    """Make key pairs and register a marketer, as this home's own operator."""

    async def work() -> str:
        chosen, now = running(home)
        mine = MarketerFile(chosen, me)
        if mine.registered:
            raise Stop(f"marketer {me!r} is registered on this home", "Choose another name with --as.")
        signing, sealing = mine.public_keys()
        async with staff(now.address, chosen, "operator") as operator:
            made = await register_marketer(
                operator,
                name=name,
                entity=entity or name,
                contact=contact,
                level=level.number,
                signing_key=signing,
                sealing_key=sealing,
            )
        mine.keep(made.name, now.address)
        return f"{made.display_name} is {made.name}, {level_text(made.verification_level)}."

    show.say(run(work()), '`eval "$(parley marketer env)"` sets what the SDK reads.')


@app.command()
def env(me: MarketerOption = "shop", home: HomeOption = None) -> None:
    """Print the PARLEY_* variables that the SDK reads, for `eval "$(parley marketer env)"`."""
    chosen = Home.choose(home)
    mine = MarketerFile(chosen, me)
    try:
        text = mine.environment(chosen.running().address)
    except NotRunning as error:
        raise Stop(str(error)) from error
    typer.echo(text, nl=False)


@app.command()
def ask(
    where: Annotated[list[str], typer.Option(help="Who: 'profile.age from 30 to 45'; all of several must hold.")],
    purpose: Purposes,
    field: Fields = None,
    question: Questions = None,
    text: Text = "",
    days: Days = 30,
    decide_days: DecideDays = None,
    *,
    once: Once = False,
    me: MarketerOption = "shop",
    home: HomeOption = None,
) -> None:
    """
    Ask whoever meets conditions. Every condition is content: a customer's consent must cover that very question.

    Conditions: X is V, X is not V, X is one of A, B, X from A to B, X at least A, X at most B.
    """

    async def work(opened: Client) -> Exchange:
        names = await catalogue(opened.connection)
        _check(field, purpose, names)
        return await opened.create_exchange(
            where=parse_conditions(where, names),
            ask=_asked(field, [parse_question(each, names) for each in question or []]),
            purposes=purpose,
            offer_text=text,
            valid_for=timedelta(days=days),
            decide_within=timedelta(days=decide_days or min(days, _OPEN_DAYS)),
            one_time=once,
        )

    made = act(home, me, work)
    show.say(f"Asked: {made.name}", "`parley marketer deliveries` shows what customers release.")


@app.command(name="ask-known")
def ask_known(
    pseudonym: Annotated[
        str, typer.Argument(help="A customer as you know them, from an earlier release; the first letters will do.")
    ],
    purpose: Purposes,
    field: Fields = None,
    question: Questions = None,
    text: Text = "",
    days: Days = 1,
    decide_days: DecideDays = None,
    *,
    once: Once = False,
    as_json: JsonOption = False,
    me: MarketerOption = "shop",
    home: HomeOption = None,
) -> None:
    """
    Ask one customer you know, for the release in the answer, if their terms allow it at once.

    It lies under a consent only as long as that one runs: ask for no more --days than are left.
    """

    async def work() -> show.Row | None:
        chosen, _now = running(home)
        async with client(home, me) as opened:
            names = await catalogue(opened.connection)
            _check(field, purpose, names)
            answer = await opened.ask_one(
                _pseudonym(MarketerFile(chosen, me).deliveries, pseudonym),
                ask=_asked(field, [parse_question(each, names) for each in question or []]),
                purposes=purpose,
                offer_text=text,
                valid_for=timedelta(days=days),
                decide_within=timedelta(days=decide_days or min(days, _OPEN_DAYS)),
                one_time=once,
            )
            if answer.delivery is None:
                return None
            inbox = Inbox(opened, MarketerFile(chosen, me).deliveries)
            await inbox.keep(answer.delivery, acknowledge=True)
            return release_row(answer.delivery.open())

    found = run(work())
    if found is None and not as_json:
        show.say(
            "Nothing was released, and why is the customer's own business. If they allow it later, it comes on the feed."
        )
    else:
        show.record(found or {}, as_json=as_json)


@app.command()
def exchanges(me: MarketerOption = "shop", *, as_json: JsonOption = False, home: HomeOption = None) -> None:
    """List what you asked, newest first."""

    async def work(opened: Client) -> list[Exchange]:
        return [each async for each in opened.list_exchanges()]

    found = [_row(each) for each in act(home, me, work)]
    show.rows(found, as_json=as_json, empty="You have asked nothing: `parley marketer ask`.")


@app.command()
def exchange(
    name: ExchangeName, me: MarketerOption = "shop", *, as_json: JsonOption = False, home: HomeOption = None
) -> None:
    """Show an exchange."""

    async def work(opened: Client) -> Exchange:
        return await opened.get_exchange(await _find(opened, name))

    show.record(_row(act(home, me, work)), as_json=as_json)


@app.command()
def cancel(name: ExchangeName, me: MarketerOption = "shop", home: HomeOption = None) -> None:
    """End an exchange: nothing more is released, but for what is just being settled."""

    async def work(opened: Client) -> Exchange:
        return await opened.cancel_exchange(await _find(opened, name))

    show.say(f"{act(home, me, work).name} is ended.")


@app.command()
def deliveries(
    me: MarketerOption = "shop",
    *,
    follow: Annotated[bool, typer.Option("--follow", help="Stay, and print what comes, until Ctrl-C.")] = False,
    wait: Annotated[float, typer.Option(min=0.1, max=86_400, help="Seconds of silence after which it ends.")] = 2.0,
    ack: Annotated[bool, typer.Option(help="Acknowledge what was printed: it doesn't come again.")] = True,
    only_kept: Annotated[
        bool, typer.Option("--kept", help="Print the releases that are kept here, and ask for nothing.")
    ] = False,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """
    Print what customers released and what became of consents, opened and checked.

    What is acknowledged is kept, still sealed, in this home, so that `parley marketer receipt` can prove it later.
    """

    async def work() -> None:
        chosen, now = running(home)
        if only_kept:
            mine = MarketerFile(chosen, me)
            show.records(
                kept_rows(mine.deliveries, mine.settings(now.address)), as_json=as_json, empty="None are kept."
            )
            return
        async with client(home, me) as opened:
            inbox = Inbox(opened, MarketerFile(chosen, me).deliveries)
            found = inbox.rows(silence=None if follow else wait, acknowledge=ack)
            if as_json and not follow:
                show.print_json([row async for row in found])
                return
            nothing = True
            async for row in found:
                show.record(row, as_json=as_json)
                show.say(*([] if as_json else [""]))
                nothing = False
            if nothing and not as_json:
                show.say("Nothing new was delivered.")

    try:
        run(work())
    except KeyboardInterrupt:
        raise typer.Exit from None


@app.command()
def receipt(
    release: Annotated[str, typer.Argument(help="A release that `deliveries` printed; its first letters will do.")],
    out: Annotated[Path, typer.Option("--out", file_okay=False, help="Where to put its four files.")],
    me: MarketerOption = "shop",
    home: HomeOption = None,
) -> None:
    """Save the receipt of a release, for `parley verify`, which needs no server."""

    async def work() -> None:
        chosen, now = running(home)
        mine = MarketerFile(chosen, me)
        async with client(home, me) as opened:
            await opened.save_receipt(kept(mine.deliveries, release, mine.settings(now.address)), out)

    refuse_taken(out)
    run(work())
    show.say(f"Saved; `parley verify {out}` checks it, without any server.")


def _check(fields: list[str] | None, purposes: list[str], names: Catalogue) -> None:
    """Raise Stop for an attribute or a purpose that isn't one."""
    for field in fields or []:
        if field not in names:
            raise Stop(f"no attribute is called {field!r}", "`parley attributes` lists them.")
    check_purposes(purposes)


def _pseudonym(folder: Path, given: str) -> str:
    """Complete a pseudonym by those that releases were kept of. Raises Stop."""
    if _PSEUDONYM.fullmatch(given):
        return given
    return find(given, pseudonyms(folder), what="pseudonym", listing="parley marketer deliveries --kept")


def _asked(fields: list[str] | None, questions: list[Any]) -> list[Asked]:
    asked = [*(fields or []), *questions]
    if not asked:
        raise Stop("nothing is asked for", "Name a --field or a --question.")
    return asked


async def _find(opened: Client, given: str) -> str:
    names = [each.name async for each in opened.list_exchanges()]
    return find(given, names, what="exchange", listing="parley marketer exchanges")


def _row(found: Exchange) -> show.Row:
    return {
        "name": found.name,
        "state": str(found.state),
        "who": _audience(found.audience),
        "content": [field_text(each) for each in found.terms.fields],
        "purposes": sorted(each.removeprefix(DPV) for each in found.terms.purposes),
        "text": found.offer_text,
        "asked": show.iso(found.create_time),
    }


def _audience(audience: Condition | tuple[str, ...]) -> list[str]:
    if isinstance(audience, Condition):
        return _questions(audience.criteria)
    return list(audience)


def _questions(criteria: Criteria) -> list[str]:
    return [field_text(Field(test.attribute, Form.ANSWER, test.question)) for test in each_criterion(criteria)]
