"""`parley customer`: a customer's own acts."""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from parley.consent.v1 import consent_pb2 as consentpb
from parley.vault.v1 import vault_pb2 as vaultpb
from parley_client.connection import Connection
from parley_node import people
from parley_node.cli import show
from parley_node.cli.calls import run, running
from parley_node.cli.names import find, whole
from parley_node.cli.options import CustomerOption, HomeOption, JsonOption, LevelName, level_text
from parley_node.cli.receipts import customer_receipt, history_rows, refuse_taken
from parley_node.cli.stop import Stop
from parley_node.cli.terms_text import Effect, end_of, parts, rule, scope_text
from parley_node.cli.wallet import CustomerFile
from parley_node.home import Home

T = TypeVar("T")

app = typer.Typer(no_args_is_help=True, help="Act as a customer: your bank, your rules, your inbox, your history.")

Attribute = Annotated[str, typer.Argument(help="A name of the catalogue, such as profile.age.")]
Offer = Annotated[str, typer.Argument(help="An offer of the inbox; the first letters of its name will do.")]
ConsentName = Annotated[str, typer.Argument(help="A consent; the first letters of its name will do.")]


def act(home: Path | None, me: str, work: Callable[[people.Customer], Coroutine[Any, Any, T]]) -> T:
    """Do something as a customer of a home. Raises Stop."""

    async def acting() -> T:
        chosen, now = running(home)
        mine = CustomerFile(chosen, me)
        async with people.customer(now.address, mine.account(), mine.signer()) as customer:
            return await work(customer)

    return run(acting())


@app.command()
def join(me: CustomerOption = "me", home: HomeOption = None) -> None:
    """Open an account, with a key that stays on this machine."""
    _open(home, me, lambda connection, mine: people.register(connection, mine.signer()))


@app.command()
def claim(
    code: Annotated[str, typer.Argument(help="The one-time code you were given.")],
    me: CustomerOption = "me",
    home: HomeOption = None,
) -> None:
    """Make an imported account yours: bind it to a key that stays on this machine."""
    _open(home, me, lambda connection, mine: people.claim(connection, code, mine.signer()))


@app.command()
def put(
    pairs: Annotated[list[str], typer.Argument(metavar="ATTRIBUTE VALUE ...", help="What to put.", show_default=False)],
    me: CustomerOption = "me",
    home: HomeOption = None,
) -> None:
    """Put values into your bank, all or none: `put profile.age 34 profile.city Lisbon`."""
    if len(pairs) % 2:
        raise typer.BadParameter("give a value with each attribute; quote a value with spaces")
    versions = act(home, me, lambda customer: customer.put(dict(zip(pairs[::2], pairs[1::2], strict=True))))
    show.say(*(f"{each.name.removeprefix('items/')}: version {each.version}" for each in versions))


@app.command()
def items(me: CustomerOption = "me", *, as_json: JsonOption = False, home: HomeOption = None) -> None:
    """List what is in your bank."""
    found = act(home, me, lambda customer: customer.items())
    show.rows([_item(each) for each in found], as_json=as_json, empty="Your bank is empty: `parley customer put`.")


@app.command()
def versions(
    attribute: Attribute, me: CustomerOption = "me", *, as_json: JsonOption = False, home: HomeOption = None
) -> None:
    """List every version of an item, newest first."""
    found = act(home, me, lambda customer: customer.versions(attribute))
    show.rows([_item(each) for each in found], as_json=as_json, empty="No such item.")


@app.command()
def delete(attribute: Attribute, me: CustomerOption = "me", home: HomeOption = None) -> None:
    """Delete an item with all its versions."""
    act(home, me, lambda customer: customer.delete(attribute))
    show.say(f"{attribute} is deleted.")


@app.command()
def discoverable(
    attribute: Attribute,
    level: Annotated[
        str, typer.Argument(metavar="|".join([*LevelName, "nobody"]), help="Who may match on it, and above.")
    ],
    me: CustomerOption = "me",
    home: HomeOption = None,
) -> None:
    """Say which marketers may look for you by an item: from a level of verification on, or nobody."""
    number = _level(level)
    item = act(home, me, lambda customer: customer.discoverable(attribute, number))
    show.say(f"{item.attribute} may be matched on by {_matched_by(item.discoverable_to)}.")


@app.command()
def rules(me: CustomerOption = "me", *, as_json: JsonOption = False, home: HomeOption = None) -> None:
    """List your standing rules, newest first."""
    found = act(home, me, lambda customer: customer.rules())
    show.rows(
        [_rule(each) for each in found], as_json=as_json, empty="No rules: whatever is asked, you are asked first."
    )


Attributes = Annotated[
    list[str] | None,
    typer.Option("--attribute", help="An attribute; repeat it for more. It covers answers about it too."),
]
Answers = Annotated[
    list[str] | None,
    typer.Option("--answers-about", help="An attribute that only yes or no is said about; may be repeated."),
]
Purposes = Annotated[
    list[str] | None, typer.Option("--purpose", help="A purpose, such as Marketing (w3id.org/dpv); may be repeated.")
]
OneMarketer = Annotated[str, typer.Option("--marketer", metavar="MARKETER", help="For one marketer, marketers/...")]
LeastLevel = Annotated[LevelName | None, typer.Option("--level", help="For marketers of this level and above.")]
Everyone = Annotated[bool, typer.Option("--everyone", help="For everyone.")]
Until = Annotated[
    datetime | None,
    typer.Option("--until", formats=["%Y-%m-%d"], help="Consents born from it end by then (00:00 UTC)."),
]
Days = Annotated[int | None, typer.Option("--days", min=1, help="The same, as days from now.")]
Once = Annotated[bool, typer.Option("--once", help="For one release each, not for standing consents.")]


@app.command()
def allow(
    attribute: Attributes = None,
    answers_about: Answers = None,
    purpose: Purposes = None,
    marketer: OneMarketer = "",
    level: LeastLevel = None,
    *,
    everyone: Everyone = False,
    until: Until = None,
    days: Days = None,
    once: Once = False,
    me: CustomerOption = "me",
    home: HomeOption = None,
) -> None:
    """Allow what lies wholly within these terms, without being asked. Nothing is allowed that isn't named."""
    if not purpose or not (attribute or answers_about):
        raise typer.BadParameter("name at least one --purpose, and one --attribute or --answers-about")
    if not (marketer or level or everyone):
        raise typer.BadParameter("say for whom: --marketer, --level or --everyone")
    scope = _scope(marketer, level, everyone=everyone)
    end = _end(until, days)
    made = rule(
        Effect.ALLOW,
        scope,
        attributes=attribute or [],
        answers=answers_about or [],
        purposes=purpose,
        until=end,
        once=once,
    )
    _add(home, me, made)


@app.command()
def ask(
    attribute: Attributes = None,
    purpose: Purposes = None,
    marketer: OneMarketer = "",
    level: LeastLevel = None,
    *,
    everyone: Everyone = False,
    me: CustomerOption = "me",
    home: HomeOption = None,
) -> None:
    """Be asked about whatever touches this; what isn't named stands for anything."""
    _touching(Effect.ASK, attribute, purpose, _scope(marketer, level, everyone=everyone), home, me)


@app.command()
def refuse(
    attribute: Attributes = None,
    purpose: Purposes = None,
    marketer: OneMarketer = "",
    level: LeastLevel = None,
    *,
    everyone: Everyone = False,
    me: CustomerOption = "me",
    home: HomeOption = None,
) -> None:
    """Refuse whatever touches this; what isn't named stands for anything."""
    _touching(Effect.REFUSE, attribute, purpose, _scope(marketer, level, everyone=everyone), home, me)


@app.command(name="end-rule")
def end_rule(
    name: Annotated[str, typer.Argument(help="A rule; the first letters of its name will do.")],
    me: CustomerOption = "me",
    home: HomeOption = None,
) -> None:
    """End a rule. Consents that were born from it stay."""

    async def work(customer: people.Customer) -> str:
        names = [each.name for each in await customer.rules()]
        chosen = find(name, names, what="rule", listing="parley customer rules")
        await customer.end_rule(chosen)
        return chosen

    show.say(f"{act(home, me, work)} is ended.")


@app.command()
def inbox(
    me: CustomerOption = "me",
    *,
    everything: Annotated[bool, typer.Option("--all", help="Those that were answered, too.")] = False,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """List the offers that wait for your answer, newest first."""
    found = act(home, me, lambda customer: customer.offers(open_only=not everything))
    show.rows([_offer(each) for each in found], as_json=as_json, empty="Nothing waits for your answer.")


@app.command(name="show")
def show_offer(
    offer: Offer, me: CustomerOption = "me", *, as_json: JsonOption = False, home: HomeOption = None
) -> None:
    """Show an offer whole: who asks, for what, on which terms, in which words."""

    async def work(customer: people.Customer) -> consentpb.Offer:
        return await _find_offer(customer, offer)

    found = act(home, me, work)
    words = {"text": found.text, "exchange": found.exchange}
    show.record({**_offer(found), "level": level_text(found.marketer_level), **words}, as_json=as_json)


@app.command()
def accept(offer: Offer, me: CustomerOption = "me", home: HomeOption = None) -> None:
    """Accept an offer on exactly the terms shown."""

    async def work(customer: people.Customer) -> consentpb.Consent:
        return (await customer.accept((await _find_offer(customer, offer)).name)).consent

    agreed = act(home, me, work)
    show.say(f"Agreed: {agreed.name}", f"`parley customer withdraw {show.short(agreed.name)}` ends it at any time.")


@app.command()
def decline(offer: Offer, me: CustomerOption = "me", home: HomeOption = None) -> None:
    """Refuse an offer. The marketer can't tell it from silence."""
    name = _answered(home, me, offer, lambda customer, name: customer.refuse(name))
    show.say(f"{name} is refused; the marketer can't tell it from silence.")


@app.command()
def later(offer: Offer, me: CustomerOption = "me", home: HomeOption = None) -> None:
    """Put an offer aside: it stays open until its deadline."""
    name = _answered(home, me, offer, lambda customer, name: customer.defer(name))
    show.say(f"{name} is put aside; it stays open until its deadline.")


@app.command()
def consents(me: CustomerOption = "me", *, as_json: JsonOption = False, home: HomeOption = None) -> None:
    """List what you agreed, newest first."""
    found = act(home, me, lambda customer: customer.consents())
    show.rows([_consent(each) for each in found], as_json=as_json, empty="You have agreed to nothing.")


@app.command()
def consent(
    name: ConsentName, me: CustomerOption = "me", *, as_json: JsonOption = False, home: HomeOption = None
) -> None:
    """Show a consent with the releases that were made under it."""

    async def work(customer: people.Customer) -> consentpb.Consent:
        return await customer.consent(await _find_consent(customer, name))

    _show_consent(act(home, me, work), as_json=as_json)


@app.command()
def withdraw(name: ConsentName, me: CustomerOption = "me", home: HomeOption = None) -> None:
    """Withdraw a consent: nothing more is released under it, and a rule refuses its marketer from now on."""

    async def work(customer: people.Customer) -> consentpb.Consent:
        return (await customer.withdraw(await _find_consent(customer, name))).consent

    ended = act(home, me, work)
    show.say(
        f"{ended.name} is withdrawn; releases made before: {len(ended.settlements)}, and no more will be.",
        f"A rule refuses {ended.marketer_display_name} from now on; `parley customer rules` lists it.",
    )


@app.command("object")
def object_(me: CustomerOption = "me", home: HomeOption = None) -> None:
    """Object to all marketing: every consent ends, and no rule counts until you lift it."""

    async def work(customer: people.Customer) -> Sequence[consentpb.Consent]:
        return await customer.object()

    ended = act(home, me, work)
    show.say(f"You object to all marketing. Consents that ended with it: {len(ended)}.")


@app.command("lift-objection")
def lift_objection(me: CustomerOption = "me", home: HomeOption = None) -> None:
    """Lift an objection: your rules count again. What it ended stays ended."""

    async def work(customer: people.Customer) -> None:
        await customer.lift_objection()

    act(home, me, work)
    show.say("Your rules count again.")


@app.command()
def pause(name: ConsentName, me: CustomerOption = "me", home: HomeOption = None) -> None:
    """Suspend a consent: nothing is released under it until you resume it."""

    async def work(customer: people.Customer) -> consentpb.Consent:
        return await customer.pause(await _find_consent(customer, name))

    show.say(f"{act(home, me, work).name} is paused.")


@app.command()
def resume(name: ConsentName, me: CustomerOption = "me", home: HomeOption = None) -> None:
    """End a pause."""

    async def work(customer: people.Customer) -> consentpb.Consent:
        return await customer.resume(await _find_consent(customer, name))

    show.say(f"{act(home, me, work).name} is active again.")


@app.command()
def history(me: CustomerOption = "me", *, as_json: JsonOption = False, home: HomeOption = None) -> None:
    """List what happened to your information: who got what, when, under which consent. Newest first."""
    found = act(home, me, lambda customer: customer.history())
    show.rows(history_rows(found, whole=as_json), as_json=as_json, empty="Nothing happened yet.")


@app.command()
def receipt(
    entry: Annotated[str, typer.Argument(help="A number of the history, or the first letters of a commitment.")],
    out: Annotated[Path, typer.Option("--out", file_okay=False, help="Where to put its four files.")],
    me: CustomerOption = "me",
    home: HomeOption = None,
) -> None:
    """Save the receipt of something that happened, for `parley verify`, which needs no server."""
    policy = Home.choose(home).policy
    refuse_taken(out)
    act(home, me, lambda customer: customer_receipt(customer, entry, policy, out))
    show.say(f"Saved; `parley verify {out}` checks it, without any server.")


def _open(home: Path | None, me: str, how: Callable[[Connection, CustomerFile], Awaitable[str]]) -> None:
    async def work() -> str:
        chosen, now = running(home)
        mine = CustomerFile(chosen, me)
        if mine.joined:
            raise Stop(f"customer {me!r} has an account on this home", "Choose another name with --as.")
        async with Connection(now.address) as connection:
            account = await how(connection, mine)
        mine.keep(account)
        return account

    show.say(f"Your account is {run(work())}; its key stays on this machine.")


def _answered(home: Path | None, me: str, offer: str, answer: Callable[[people.Customer, str], Awaitable[None]]) -> str:
    async def work(customer: people.Customer) -> str:
        name = (await _find_offer(customer, offer)).name
        await answer(customer, name)
        return name

    return act(home, me, work)


async def _find_offer(customer: people.Customer, given: str) -> consentpb.Offer:
    offers = {each.name: each for each in await customer.offers(open_only=False)}
    return offers[find(given, offers, what="offer", listing="parley customer inbox")]


async def _find_consent(customer: people.Customer, given: str) -> str:
    if name := whole(given, "consents"):
        return name
    names = [each.name for each in await customer.consents()]
    return find(given, names, what="consent", listing="parley customer consents")


def _touching(
    effect: Effect,
    attribute: Sequence[str] | None,
    purpose: Sequence[str] | None,
    scope: consentpb.RuleScope,
    home: Path | None,
    me: str,
) -> None:
    made = rule(
        effect,
        scope,
        attributes=list(attribute or []),
        answers=[],
        purposes=list(purpose or []),
        until=None,
        once=False,
    )
    _add(home, me, made)


def _add(home: Path | None, me: str, made: consentpb.Rule) -> None:
    added = act(home, me, lambda customer: customer.add_rule(made))
    show.say(f"{added.name} stands; `parley customer end-rule {show.short(added.name)}` ends it.")


def _scope(marketer: str, level: LevelName | None, *, everyone: bool) -> consentpb.RuleScope:
    if bool(marketer) + bool(level) + everyone > 1:
        raise typer.BadParameter("--marketer, --level and --everyone exclude each other")
    if marketer:
        if not (name := whole(marketer, "marketers")):
            raise typer.BadParameter(
                "a marketer is called marketers/ and 26 letters: `parley customer show OFFER` says it"
            )
        return consentpb.RuleScope(marketer=name)
    if level:
        return consentpb.RuleScope(least_level=level.number)  # type: ignore[arg-type] # an enum's number
    return consentpb.RuleScope(everyone=consentpb.Everyone())


def _end(until: datetime | None, days: int | None) -> datetime | None:
    if until and days:
        raise typer.BadParameter("--until and --days exclude each other")
    return end_of(until, days, datetime.now(UTC))


def _level(text: str) -> int:
    if text == "nobody":
        return 0
    try:
        return LevelName(text).number
    except ValueError:
        raise typer.BadParameter(f"one of {', '.join(LevelName)}, nobody") from None


def _matched_by(level: int) -> str:
    return f"{level_text(level)} marketers and above" if level else "nobody"


def _item(item: vaultpb.Item) -> show.Row:
    return {
        "attribute": item.attribute,
        "value": item.value,
        "version": item.version,
        "came_from": vaultpb.Provenance.Name(item.provenance).removeprefix("PROVENANCE_").lower(),
        "discoverable_to": level_text(item.discoverable_to),
        "put": show.moment(item.create_time),
    }


def _rule(found: consentpb.Rule) -> show.Row:
    effect = consentpb.RuleEffect.Name(found.effect).removeprefix("RULE_EFFECT_").lower()
    named = parts(found.terms)
    anything = {} if found.effect == consentpb.RULE_EFFECT_ALLOW else {"content": ["anything"], "purposes": ["any"]}
    return {
        "name": found.name,
        "effect": effect,
        "scope": scope_text(found.scope),
        **{part: value or anything.get(part, "") for part, value in named.items()},
        "made": show.moment(found.create_time),
    }


def _state(state: consentpb.ConsentState.ValueType) -> str:
    return consentpb.ConsentState.Name(state).removeprefix("CONSENT_STATE_")


def _offer(offer: consentpb.Offer) -> show.Row:
    return {
        "name": offer.name,
        "state": _state(offer.state),
        "who": offer.marketer_display_name,
        "marketer": offer.marketer,
        **parts(offer.terms),
        "answer_by": show.moment(offer.terms.timing.decision_deadline),
    }


def _consent(found: consentpb.Consent) -> show.Row:
    return {
        "name": found.name,
        "state": _state(found.state),
        "who": found.marketer_display_name,
        "marketer": found.marketer,
        **parts(found.terms),
        "agreed": show.moment(found.create_time),
    }


def _show_consent(found: consentpb.Consent, *, as_json: bool) -> None:
    more = {
        "pseudonym": found.pseudonym,
        "rule": found.rule,
        "withdrawn": show.moment(found.revoke_time),
        "withdrawn_by": found.revoked_by,
    }
    releases = [
        {"release": each.release_id, "exchange": each.exchange, "time": show.moment(each.settle_time)}
        for each in found.settlements
    ]
    if as_json:
        show.print_json({**_consent(found), **more, "releases": releases})
        return
    show.record({**_consent(found), **more})
    show.rows(releases, as_json=False, empty="Nothing was released under it.")
