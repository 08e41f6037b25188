"""Servers of the operator's own, named by URL in the environment; they win over embedded ones."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from parley_node.embedded.errors import ServersUnavailable

POSTGRES_URL = "PARLEY_POSTGRES_URL"
VALKEY_URL = "PARLEY_VALKEY_URL"


@dataclass(frozen=True)
class ExternalServers:
    """
    PostgreSQL and Valkey (or Redis) by URL.

    ``admin_dsn`` signs in as a role that may make databases and roles, ``valkey_url`` as a user that may make users.
    """

    admin_dsn: str = field(repr=False)
    valkey_url: str = field(repr=False)
    provider: str = "servers named in the environment"
    adopted: bool = True

    def postgres_dsn(self, database: str, role: str, passfile: Path) -> str:
        """
        URL of a database on the same server for a role that signs in with the password of a file (pgpass).

        A password in the URL is the administrator's, and is dropped.
        """
        return dsn_for(self.admin_dsn, database, role, passfile)

    def database_dsn(self, database: str) -> str:
        """URL of a database for the administrator."""
        return urlunsplit(urlsplit(self.admin_dsn)._replace(path=f"/{quote(database, safe='')}"))

    @property
    def valkey_address(self) -> str:
        """URL of Valkey, naming nobody."""
        url = urlsplit(self.valkey_url)
        options = [(name, value) for name, value in parse_qsl(url.query) if name not in ("username", "password")]
        nobody = url._replace(netloc=url.netloc.rpartition("@")[2], query=urlencode(options))
        return urlunsplit(nobody)


def from_environment(environ: Mapping[str, str]) -> ExternalServers | None:
    """Read both URLs, or None where neither is set. Raises ServersUnavailable when only one is."""
    postgres_url, valkey_url = environ.get(POSTGRES_URL), environ.get(VALKEY_URL)
    if postgres_url and valkey_url:
        for name, url in ((POSTGRES_URL, postgres_url), (VALKEY_URL, valkey_url)):
            _require_url(name, url)
        return ExternalServers(admin_dsn=postgres_url, valkey_url=valkey_url)
    if postgres_url or valkey_url:
        raise ServersUnavailable(f"set both {POSTGRES_URL} and {VALKEY_URL}, or neither")
    return None


def _require_url(name: str, url: str) -> None:
    """Raise ServersUnavailable for what is no URL, without a word of it: there may be a password inside."""
    try:
        parts = urlsplit(url)
        is_one = bool(parts.scheme) and parts.port != 0
    except ValueError:
        is_one = False
    if not is_one:
        raise ServersUnavailable(f"{name} is no URL: write / as %2F, @ as %40 and : as %3A in its password")


def dsn_for(base: str, database: str, role: str, passfile: Path) -> str:
    """Rewrite a PostgreSQL URL for another database and role, keeping host and options."""
    url = urlsplit(base)
    host = url.netloc.rpartition("@")[2]
    kept = [(name, value) for name, value in parse_qsl(url.query) if name not in ("user", "password", "passfile")]
    query = urlencode([*kept, ("passfile", str(passfile))], safe="/")
    return urlunsplit(
        (url.scheme, f"{quote(role, safe='')}@{host}", f"/{quote(database, safe='')}", query, url.fragment)
    )
