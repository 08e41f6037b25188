"""Audit's settings."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from parley_rpc.confine import Written


class Config(BaseSettings):
    """Read from ``PARLEY_AUDIT_*`` in the environment; secrets are file paths."""

    model_config = SettingsConfigDict(env_prefix="PARLEY_AUDIT_", frozen=True)

    postgres_dsn: str
    """Where audit's own database is, as audit's own role."""

    master_key: Path
    """Wraps the key of each customer's details."""

    sealing_key: Path
    """X25519: opens what services seal to audit."""

    ref_key: Path
    """Shared with identity alone: opens subject refs."""

    log_key: Path
    """Ed25519: signs checkpoints and nothing else, for one log for ever."""

    origin: str
    """The log's name: the address of its HTTP prefix, without scheme and trailing slash. Never changes."""

    published: Annotated[Path, Written()]
    """
    Holds the newest signed checkpoint, in a directory of its own. Keep it apart from the database, and out of what a restore
    brings back.
    """

    trust: Path
    """The key set in which services find the key that they seal to."""

    batch: int = Field(default=128, ge=1, le=4096)
    """Events of one stream that share a transaction, at most."""

    tick: timedelta = Field(default=timedelta(milliseconds=200), ge=timedelta(milliseconds=10), le=timedelta(seconds=1))
    """
    The log grows by one entry so often, whatever happened meanwhile, and what happened is provable as much later. An entry takes
    in 8,191 things, so at 200 ms the log takes 40,000 a second, and a day takes some 45 MB of disk where nothing happens at all.
    """
