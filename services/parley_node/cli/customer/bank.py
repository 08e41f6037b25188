"""The bank: what is in it, and who may look for its owner by it."""

from typing import Annotated

import typer

from parley.vault.v1 import vault_pb2 as vaultpb
from parley_node import people
from parley_node.cli import show
from parley_node.cli.customer.app import act, app
from parley_node.cli.options import CustomerOption, HomeOption, JsonOption, LevelName, level_text

Attribute = Annotated[str, typer.Argument(help="A name of the catalogue, such as profile.age.")]


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

    async def work(customer: people.Customer) -> int:
        versions = len(await customer.versions(attribute))  # to Parley, what isn't there is as good as deleted
        await customer.delete(attribute)
        return versions

    show.say(f"{attribute} is deleted; versions that it had: {act(home, me, work)}.")


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
