"""
Passwords of roles: random, made once, each in a file that only its owner may read.

A server is told how to check a password, never the password: neither a statement nor a server's log holds one.
"""

import base64
import hashlib
import hmac
import os
import secrets
from pathlib import Path

from parley_crypto.keyfiles import ensure_secret, read_secret

_ITERATIONS = 4096  # what PostgreSQL itself takes; more would guard a guessable password, which these are not


def ensure_pgpass(path: Path, role: str) -> None:
    """Make a role's password, as PostgreSQL's clients read it (``passfile``), unless it is there."""
    ensure_secret(path, lambda: pgpass(role, new()))


def ensure_password(path: Path) -> None:
    """Make a password unless it is there."""
    ensure_secret(path, new)


def pgpass(role: str, password: str) -> str:
    """A line of a password file, for a role on any server."""
    return f"*:*:*:{role}:{password}\n"


def new() -> str:
    """A fresh password, of 256 bits; nothing in it needs quoting anywhere."""
    return secrets.token_urlsafe(32)


def verifier(pgpass_file: Path) -> str:
    """What PostgreSQL keeps of the password in a file (RFC 5803, SCRAM-SHA-256). Raises KeyFileUnusable."""
    return scram(read_secret(pgpass_file).strip().rpartition(":")[2], os.urandom(16))


def scram(password: str, salt: bytes) -> str:
    """What PostgreSQL keeps of a password of ASCII letters, digits, - and _ (they need no SASLprep)."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    keys = (base64.b64encode(part).decode() for part in (salt, stored, server))
    return "SCRAM-SHA-256${}:{}${}:{}".format(_ITERATIONS, *keys)
