"""Consents, and objection to all marketing."""

from collections.abc import Sequence
from typing import Annotated

import typer

from parley.consent.v1 import consent_pb2 as consentpb
from parley_node import people
from parley_node.cli import show
from parley_node.cli.customer.app import act, app
from parley_node.cli.customer.rows import consent_row
from parley_node.cli.names import find, whole
from parley_node.cli.options import CustomerOption, HomeOption, JsonOption

ConsentName = Annotated[str, typer.Argument(help="A consent; the first letters of its name will do.")]


@app.command()
def consents(me: CustomerOption = "me", *, as_json: JsonOption = False, home: HomeOption = None) -> None:
    """List what you agreed, newest first."""
    found = act(home, me, lambda customer: customer.consents())
    show.rows([consent_row(each) for each in found], as_json=as_json, empty="You have agreed to nothing.")


@app.command()
def consent(
    name: ConsentName, me: CustomerOption = "me", *, as_json: JsonOption = False, home: HomeOption = None
) -> None:
    """Show a consent with the releases that were made under it."""

    async def work(customer: people.Customer) -> tuple[consentpb.Consent, Sequence[consentpb.Settlement]]:
        found = await customer.consent(await _find_consent(customer, name))
        return found, await customer.settlements(found.name) if found.more_settlements else found.settlements

    _show_consent(*act(home, me, work), as_json=as_json)


@app.command()
def withdraw(name: ConsentName, me: CustomerOption = "me", home: HomeOption = None) -> None:
    """Withdraw a consent: nothing more is released under it, and a rule refuses its marketer from now on."""

    async def work(customer: people.Customer) -> consentpb.WithdrawConsentResponse:
        return await customer.withdraw(await _find_consent(customer, name))

    answer = act(home, me, work)
    ended = answer.consent
    if not answer.HasField("opening"):
        show.say(
            f"{ended.name} was withdrawn before; nothing has changed.",
            "`parley customer rules` lists what stands: whether one still refuses its marketer.",
        )
        return
    show.say(
        f"{ended.name} is withdrawn; releases made before: {_count(ended)}, and no more will be.",
        f"A rule refuses {ended.marketer_display_name} from now on; `parley customer rules` lists it.",
    )


@app.command("object")
def object_(me: CustomerOption = "me", home: HomeOption = None) -> None:
    """Object to all marketing: every consent ends, and no rule counts until you lift it."""

    async def work(customer: people.Customer) -> int:
        return await customer.object()

    show.say(f"You object to all marketing. Consents that ended with it: {act(home, me, work)}.")


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


async def _find_consent(customer: people.Customer, given: str) -> str:
    if name := whole(given, "consents"):
        return name
    names = [each.name for each in await customer.consents()]
    return find(given, names, what="consent", listing="parley customer consents")


def _count(ended: consentpb.Consent) -> str:
    return f"{'more than ' if ended.more_settlements else ''}{len(ended.settlements)}"


def _show_consent(found: consentpb.Consent, settlements: Sequence[consentpb.Settlement], *, as_json: bool) -> None:
    more = {
        "pseudonym": found.pseudonym,
        "rule": found.rule,
        "withdrawn": show.moment(found.revoke_time),
        "withdrawn_by": found.revoked_by,
    }
    releases = [
        {"release": each.release_id, "exchange": each.exchange, "time": show.moment(each.settle_time)}
        for each in settlements
    ]
    if as_json:
        show.print_json({**consent_row(found), **more, "releases": releases})
        return
    show.record({**consent_row(found), **more})
    show.rows(releases, as_json=False, empty="Nothing was released under it.")
