"""Standing rules: what is allowed, asked about, or refused."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf.timestamp_pb2 import Timestamp

from parley.consent.v1 import consent_pb2 as consentpb
from parley_node import people
from parley_node.cli import show
from parley_node.cli.customer.app import act, app
from parley_node.cli.names import find, whole
from parley_node.cli.options import MOST_DAYS, CustomerOption, HomeOption, JsonOption, LevelName
from parley_node.cli.stop import Stop
from parley_node.cli.terms_text import Effect, end_of, parts, rule, scope_text

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
Days = Annotated[int | None, typer.Option("--days", min=1, max=MOST_DAYS, help="The same, as days from now.")]
Once = Annotated[bool, typer.Option("--once", help="For one release each, not for standing consents.")]


@app.command()
def rules(me: CustomerOption = "me", *, as_json: JsonOption = False, home: HomeOption = None) -> None:
    """List your standing rules, newest first."""

    async def work(customer: people.Customer) -> tuple[Sequence[consentpb.Rule], Timestamp | None]:
        return await customer.rules(), await customer.objected()

    found, objected = act(home, me, work)
    if objected and not as_json:
        since = show.moment(objected)
        show.say(f"You object to all marketing since {since}: no rule counts until `parley customer lift-objection`.")
    otherwise = "" if objected else ": whatever is asked, you are asked first"
    show.rows([_rule(each) for each in found], as_json=as_json, empty=f"No rules{otherwise}.")


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
    async def work(customer: people.Customer) -> consentpb.Rule:
        known = await people.catalogue(customer.connection)
        for field in made.terms.content.fields:
            if field.attribute not in known:  # it would stand, and touch nothing
                raise Stop(f"{field.attribute} is no attribute", "`parley attributes` lists what there is.")
        return await customer.add_rule(made)

    added = act(home, me, work)
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
    now = datetime.now(UTC)
    end = end_of(until, days, now)
    if end and end <= now:
        raise typer.BadParameter("--until is past: nothing would ever be allowed")
    return end


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
