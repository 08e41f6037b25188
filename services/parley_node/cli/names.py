"""Short forms of resource names: the first letters of an id are enough where no other begins with them."""

import re
from collections.abc import Iterable

from parley_node.cli.stop import Stop

_ID = re.compile(r"[a-z2-7]{26}")


def whole(given: str, collection: str) -> str | None:
    """Complete an id, with or without its collection, where all of it was given; else None."""
    name = given.rpartition("/")[2]
    return f"{collection}/{name}" if _ID.fullmatch(name) else None


def find(given: str, names: Iterable[str], *, what: str, listing: str) -> str:
    """Find the one name whose id begins as given. Raises Stop for none or several; ``listing`` prints them all."""
    start = given.rpartition("/")[2]
    found = sorted({name for name in names if start and name.rpartition("/")[2].startswith(start)})
    if len(found) == 1:
        return found[0]
    if found:
        raise Stop(f"{len(found)} names of {what}s begin with {given!r}", "Give more of its letters.")
    raise Stop(f"there is no {what} {given!r}", f"`{listing}` lists them.")
