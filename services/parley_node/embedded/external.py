"""Servers of the operator's own, named by URL in the environment; they win over embedded ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlsplit, urlunsplit

from parley_node.embedded.errors import ServersUnavailable

POSTGRES_URL = "PARLEY_POSTGRES_URL"
VALKEY_URL = "PARLEY_VALKEY_URL"


@dataclass(frozen=True)
class ExternalServers:
    """PostgreSQL and Valkey (or Redis) by URL. ``admin_dsn`` signs in as a role that may make databases and roles."""

    admin_dsn: str
    valkey_url: str
    provider: str = "servers named in the environment"
    adopted: bool = True

    def postgres_dsn(self, database: str, role: str) -> str:
        """
        URL of a database for a role on the same server.

        A password belongs to one role: it stays for the URL's own and is dropped for any other (pg_hba.conf, a
        password file or a certificate then lets that role in).
        """
        return dsn_for(self.admin_dsn, database, role)


def from_environment(environ: Mapping[str, str]) -> ExternalServers | None:
    """Read both URLs, or None where neither is set. Raises ServersUnavailable when only one is."""
    postgres_url, valkey_url = environ.get(POSTGRES_URL), environ.get(VALKEY_URL)
    if postgres_url and valkey_url:
        return ExternalServers(admin_dsn=postgres_url, valkey_url=valkey_url)
    if postgres_url or valkey_url:
        raise ServersUnavailable(f"set both {POSTGRES_URL} and {VALKEY_URL}, or neither")
    return None


def dsn_for(base: str, database: str, role: str) -> str:
    """Rewrite a PostgreSQL URL for another database and role, keeping host and options."""
    url = urlsplit(base)
    credentials, _, host = url.netloc.rpartition("@")
    user = credentials if credentials.partition(":")[0] == quote(role, safe="") else quote(role, safe="")
    return urlunsplit((url.scheme, f"{user}@{host}", f"/{quote(database, safe='')}", url.query, url.fragment))
