"""What a client of a bench is to do."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

from parley_client import Client
from parley_client.settings import Settings

STARTED = "started"
"""What a client prints when its callers begin."""


@dataclass(frozen=True)
class Job:
    """
    What to measure: ``echo``, ``single``, ``campaign``, ``withdrawals`` or ``leaves``.

    ``callers`` are at it at once, for ``seconds``; a campaign ends when it has reached ``customers``. ``outboxes`` are the
    databases that must have none left, ``log`` is the one in which nothing may wait for the log, and ``pseudonyms`` a file with
    those of the campaign.
    """

    kind: str
    address: str
    callers: int = 1
    seconds: float = 5.0
    customers: int = 0
    folder: str = ""
    marketer: str = ""
    outboxes: Sequence[str] = ()
    log: str = ""

    @property
    def pseudonyms(self) -> Path:
        """Where the campaign leaves its pseudonyms, a line each."""
        return Path(self.folder) / "pseudonyms"

    def client(self) -> Client:
        """The marketer's client, with the keys in the folder."""
        where = Path(self.folder)
        settings = Settings(
            self.address,
            self.marketer,
            signing_key_file=where / "signing",
            sealing_key_file=where / "sealing",
            trust_file=where / "trust.json",
            policy_file=where / "policy",
            deadline=timedelta(seconds=60),
        )
        return Client(settings)

    def to_argument(self) -> str:
        """As the command line takes it."""
        return json.dumps(asdict(self))
