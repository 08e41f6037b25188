"""Identity's settings."""

from datetime import timedelta
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Config(BaseSettings):
    """Read from ``PARLEY_IDENTITY_*`` in the environment; secrets are file paths."""

    model_config = SettingsConfigDict(env_prefix="PARLEY_IDENTITY_", frozen=True)

    postgres_dsn: str
    """Where identity's own database is, as identity's own role."""

    signing_key: Path
    """Ed25519: signs access tokens and marketer cards."""

    wrap_key: Path
    """Identity's alone: wraps customers' seeds."""

    pseudonym_key: Path
    """Identity's alone: the sector keys of marketers are derived from it. Changing it changes every pseudonym."""

    row_key: Path
    """Identity's alone: keys the hashes of imports' row keys and of claim codes."""

    ref_vault_key: Path
    """Shared with vault alone: seals subject refs to it."""

    ref_consent_key: Path
    """Shared with consent alone: seals subject refs to it."""

    ref_audit_key: Path
    """Shared with audit alone: seals subject refs to it."""

    ref_identity_key: Path
    """Identity's alone: seals the refs that come back to it."""

    candidate_key: Path
    """Shared with vault alone: opens the candidates that it found."""

    request_key: Path
    """Keys the fingerprints of requests, and the hashes of assertions that were used: under another they could be used again."""

    trust: Path
    """The key set that everybody checks statements with: served as it is, and says which key details for audit go to."""

    operators: Path
    """JSON object of those who may sign in as staff: ``{"operators/NAME" or "importers/NAME": base64 Ed25519 key}``."""

    claim_life: timedelta = Field(default=timedelta(days=30), gt=timedelta(0))
    """How long a claim code is good for."""

    vault_host: str = "local"
    """The vault host that new accounts live with."""
