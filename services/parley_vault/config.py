"""Vault's settings."""

from pathlib import Path

from pydantic_settings import BaseSettings, SettingsConfigDict


class Config(BaseSettings):
    """Read from ``PARLEY_VAULT_*`` in the environment; secrets are file paths."""

    model_config = SettingsConfigDict(env_prefix="PARLEY_VAULT_", frozen=True)

    postgres_dsn: str
    """Where vault's own database is, as vault's own role."""

    signing_key: Path
    """Ed25519: signs releases."""

    master_key: Path
    """Wraps the data key of every subject. Whoever has it and a copy of the database reads everything."""

    ref_key: Path
    """Shared with identity alone: opens subject refs."""

    candidate_key: Path
    """Shared with identity alone: seals the refs of candidates."""

    order_key: Path
    """Keys the order of candidates, so that it says nothing about them."""

    request_key: Path
    """Keys the fingerprints of requests."""

    trust: Path
    """The key set that cards and permits are checked with; details for the log are sealed to its key of audit."""

    vault_host: str = "local"
    """The name under which identity and consent know this vault."""

    catalogue: Path | None = None
    """Attributes that the operator adds, in TOML as in ``catalogue.toml``."""
