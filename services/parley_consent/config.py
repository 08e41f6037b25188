"""Consent's settings."""

from datetime import timedelta
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Config(BaseSettings):
    """Read from ``PARLEY_CONSENT_*`` in the environment; secrets are file paths."""

    model_config = SettingsConfigDict(env_prefix="PARLEY_CONSENT_", frozen=True)

    postgres_dsn: str
    """Where consent's own database is, as consent's own role."""

    signing_key: Path
    """Ed25519: signs permits, artefacts and notices."""

    ref_key: Path
    """Shared with identity alone: opens subject refs."""

    request_key: Path
    """Keys the fingerprints of requests, and release ids."""

    trust: Path
    """The key set: what identity's statements are checked with, and what details for audit are sealed to."""

    longest_notice_delay: timedelta = Field(default=timedelta(hours=1), ge=timedelta(0))
    """Marketers learn of a withdrawal after a random delay up to this. Shorter joins acts to notices: for trying only."""

    audit_limit: timedelta = Field(default=timedelta(seconds=60), gt=timedelta(0))
    """Nothing settles while an event of consent's own has waited longer than this for the audit log."""

    jurisdiction: str = "EU"
    """What artefacts name as jurisdiction."""
