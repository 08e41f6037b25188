"""
One user of Redis or Valkey per service: it writes its own stream, and only reads those it is a reader of.

What can't be told apart is a reader's group: a user that may read a stream may read it as any of its groups.
"""

import hashlib
import re
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from redis.exceptions import RedisError, ResponseError

from parley_bus.bus import COMMAND_TIMEOUT, BusAway, client, stream_key

_EVERYWHERE = ("ping", "multi", "exec")
_WRITING = ("xadd", "xtrim", "xrange", "xinfo|stream", "xinfo|groups", "xpending", "xgroup|create", "del")
_READING = ("xreadgroup", "xautoclaim", "xack")
_NOTHING = frozenset({"reset", "resetchannels", "-@all", "sanitize-payload", "alldbs"})
"""What a user begins with, as the server writes it, or we do."""


@dataclass(frozen=True, slots=True)
class User:
    """A service: the name and password it signs in with, and the services whose streams it reads beside writing its own."""

    service: str
    name: str
    password: str = field(repr=False)
    reads: Sequence[str] = ()


async def ensure_users(url: str, users: Iterable[User]) -> None:
    """
    Make users, or make them anew; ``url`` signs in as an administrator.

    They outlive a restart where the server keeps its users in a file (``aclfile``). Raises BusAway.
    """
    async with _administrator(url) as redis:
        for user in users:
            await redis.execute_command("ACL", "SETUSER", user.name, *rules(user))
        try:
            await redis.execute_command("ACL", "SAVE")
        except ResponseError as error:
            if "ACL file" not in str(error):  # it keeps none: then its users are made at each start
                raise


async def wrong_users(url: str, users: Iterable[User]) -> list[str]:
    """The names of users who aren't there, or may do less or more than they should. Raises BusAway."""
    async with _administrator(url) as redis:
        lines = [line.decode(errors="replace") for line in await redis.execute_command("ACL", "LIST")]
    there = {name: rest for _, name, rest in (line.split(" ", 2) for line in lines)}
    return [user.name for user in users if meaning(there.get(user.name, "")) != meaning(" ".join(rules(user)))]


@asynccontextmanager
async def _administrator(url: str) -> AsyncIterator[Any]:
    """A connection for whoever ``url`` names. Raises BusAway for whatever goes wrong within the block."""
    redis: Any = client(url, COMMAND_TIMEOUT)
    try:
        yield redis
    except (RedisError, OSError) as error:
        raise BusAway from error
    finally:
        await redis.aclose()


def rules(user: User) -> list[str]:
    """What a user may do, as ``ACL SETUSER`` reads it (Redis 7.0). The server learns the password's hash alone."""
    digest = hashlib.sha256(user.password.encode()).hexdigest()
    own = _selector(user.service, _WRITING)
    others = [_selector(service, _READING) for service in user.reads]
    # A server may be told to let everybody into all channels of its own accord (acl-pubsub-default).
    return ["reset", "resetchannels", "on", f"#{digest}", *_allowed(_EVERYWHERE), own, *others]


def _selector(service: str, commands: Iterable[str]) -> str:
    """What may be done with one service's stream."""
    return f"({' '.join(['resetchannels', f'~{stream_key(service)}', *_allowed(commands)])})"


def meaning(rules: str) -> frozenset[frozenset[str]]:
    """What a user's rules come to, in whatever order: of the user itself, and of each selector (in brackets)."""
    whole = [re.sub(r"\([^)]*\)", "", rules), *re.findall(r"\(([^)]*)\)", rules)]
    return frozenset(frozenset(part.split()) - _NOTHING for part in whole)


def _allowed(commands: Iterable[str]) -> list[str]:
    return [f"+{command}" for command in commands]
