"""Broker's settings."""

from datetime import timedelta
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Config(BaseSettings):
    """Read from ``PARLEY_BROKER_*`` in the environment; secrets are file paths."""

    model_config = SettingsConfigDict(env_prefix="PARLEY_BROKER_", frozen=True)

    postgres_dsn: str
    """Where broker's own database is, as broker's own role."""

    request_key: Path
    """Keys the fingerprints of requests, resume tokens and names of deliveries: those that are out go with it."""

    trust: Path
    """The key set: what marketer cards are checked with, and what details for audit are sealed to."""

    batch: int = Field(default=100, ge=1, le=500)
    """So many participants go through decide, release and settle together: what is sent within a second, and fits a request."""

    heartbeat: timedelta = Field(default=timedelta(seconds=15), gt=timedelta(0))
    """How often a quiet feed shows a sign of life."""
