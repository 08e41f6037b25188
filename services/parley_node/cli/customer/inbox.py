"""The inbox: offers, and their answers."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from parley.consent.v1 import consent_pb2 as consentpb
from parley_client.errors import ParleyError
from parley_node import people
from parley_node.cli import show
from parley_node.cli.customer.app import act, app
from parley_node.cli.customer.rows import offer_row
from parley_node.cli.names import find
from parley_node.cli.options import CustomerOption, HomeOption, JsonOption, level_text

Offer = Annotated[str, typer.Argument(help="An offer of the inbox; the first letters of its name will do.")]


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
    show.rows([offer_row(each) for each in found], as_json=as_json, empty="Nothing waits for your answer.")


@app.command(name="show")
def show_offer(
    offer: Offer, me: CustomerOption = "me", *, as_json: JsonOption = False, home: HomeOption = None
) -> None:
    """Show an offer whole: who asks, for what, on which terms, in which words."""

    async def work(customer: people.Customer) -> consentpb.Offer:
        return await _find_offer(customer, offer)

    found = act(home, me, work)
    words = {"text": found.text, "exchange": found.exchange}
    show.record({**offer_row(found), "level": level_text(found.marketer_level), **words}, as_json=as_json)


@app.command()
def accept(offer: Offer, me: CustomerOption = "me", home: HomeOption = None) -> None:
    """Accept an offer on exactly the terms shown."""

    async def work(customer: people.Customer) -> tuple[consentpb.Consent, bool]:
        agreed = (await customer.accept((await _find_offer(customer, offer)).name)).consent
        with suppress(ParleyError):  # agreed is agreed
            return agreed, await customer.objected() is not None
        return agreed, False

    agreed, objected = act(home, me, work)
    show.say(f"Agreed: {agreed.name}", f"`parley customer withdraw {show.short(agreed.name)}` ends it at any time.")
    if objected:
        show.say("But you object to all marketing: nothing is released until `parley customer lift-objection`.")


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


def _answered(home: Path | None, me: str, offer: str, answer: Callable[[people.Customer, str], Awaitable[None]]) -> str:
    async def work(customer: people.Customer) -> str:
        name = (await _find_offer(customer, offer)).name
        await answer(customer, name)
        return name

    return act(home, me, work)


async def _find_offer(customer: people.Customer, given: str) -> consentpb.Offer:
    offers = {each.name: each for each in await customer.offers(open_only=False)}
    return offers[find(given, offers, what="offer", listing="parley customer inbox")]
