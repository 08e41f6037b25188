"""What a marketer's backend is told: where Parley is, who the marketer is, and which keys and policy it pinned."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from parley_client.errors import SettingsInvalid

_VARIABLES = {
    "PARLEY_ADDRESS": "where Parley listens, `parley.example:443` or `unix:/path`; where its services run apart, `{service}` "
    "in it stands for the name of each",
    "PARLEY_MARKETER": "the marketer's resource name, `marketers/...`",
    "PARLEY_SIGNING_KEY_FILE": "the key file that signs the marketer in",
    "PARLEY_SEALING_KEY_FILE": "the key file that opens what is sealed to the marketer",
    "PARLEY_TRUST_FILE": "the key set that signatures are checked with",
    "PARLEY_POLICY_FILE": "the sealed policy that receipts are checked with",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """
    Settings of a client. ``deadline`` bounds every call, its retries included.

    A local ``address`` (``unix:`` or loopback) is dialled in clear, any other with TLS; ``{service}`` in it is replaced by the
    name of the service that is called.
    """

    address: str
    marketer: str
    signing_key_file: Path
    sealing_key_file: Path
    trust_file: Path
    policy_file: Path
    deadline: timedelta = timedelta(seconds=10)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Read ``PARLEY_*`` variables. Raises SettingsInvalid, which names every one that is missing."""
        if missing := [f"{name} ({what})" for name, what in _VARIABLES.items() if not environ.get(name)]:
            raise SettingsInvalid(f"not set: {', '.join(missing)}")
        return cls(
            address=environ["PARLEY_ADDRESS"],
            marketer=environ["PARLEY_MARKETER"],
            signing_key_file=Path(environ["PARLEY_SIGNING_KEY_FILE"]),
            sealing_key_file=Path(environ["PARLEY_SEALING_KEY_FILE"]),
            trust_file=Path(environ["PARLEY_TRUST_FILE"]),
            policy_file=Path(environ["PARLEY_POLICY_FILE"]),
        )
