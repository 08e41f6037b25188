"""Where the command line keeps who its people are: a name and key files for each, readable by their owner alone."""

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from parley_client.settings import Settings
from parley_crypto.keyfiles import ensure_key, read_key, write_key
from parley_crypto.signing import Sealer, Signer
from parley_node.cli.stop import Stop
from parley_node.home import Home


@dataclass(frozen=True)
class CustomerFile:
    """One customer of a home, called by a name of this machine's."""

    home: Home
    name: str

    @property
    def _file(self) -> Path:
        return self.home.people / "customers" / f"{self.name}.json"

    @property
    def joined(self) -> bool:
        """Whether there is an account already."""
        return self._file.exists()

    def signer(self) -> Signer:
        """The customer's key, made where there is none."""
        path = self._file.with_suffix(".key")
        ensure_key(path)
        return Signer(read_key(path))

    def keep(self, customer: str) -> None:
        """Keep the account's name."""
        self._file.write_text(json.dumps({"customer": customer}) + "\n")

    def adopt(self, customer: str, seed: bytes) -> None:
        """Keep an account that was opened elsewhere, with the seed of its key."""
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_key(self._file.with_suffix(".key"), seed)
        self.keep(customer)

    def account(self) -> str:
        """The account's name. Raises Stop where there is none."""
        if not self.joined:
            raise Stop(f"no customer {self.name!r} is on this home", "`parley customer join` opens an account.")
        return str(json.loads(self._file.read_text())["customer"])


@dataclass(frozen=True)
class MarketerFile:
    """One marketer of a home, called by a name of this machine's."""

    home: Home
    name: str

    @property
    def folder(self) -> Path:
        """Its keys, its name, its environment, and what was delivered to it, still sealed."""
        return self.home.people / "marketers" / self.name

    @property
    def deliveries(self) -> Path:
        """What was delivered and acknowledged, kept so that receipts can be fetched later."""
        return self.folder / "deliveries"

    @property
    def _file(self) -> Path:
        return self.folder / "marketer.json"

    @property
    def registered(self) -> bool:
        """Whether it is registered already."""
        return self._file.exists()

    def public_keys(self) -> tuple[bytes, bytes]:
        """The public keys that sign and that are sealed to, made where there are none."""
        for key in (self._signing_key, self._sealing_key):
            ensure_key(key)
        return Signer.load(self._signing_key).public_key, Sealer.load(self._sealing_key).public_key

    def keep(self, marketer: str, address: str) -> None:
        """Keep its name, and its environment for backends."""
        self._file.write_text(json.dumps({"marketer": marketer}) + "\n")
        (self.folder / "env").write_text(self.environment(address))

    def marketer(self) -> str:
        """Its name. Raises Stop where there is none."""
        if not self.registered:
            step = '`parley marketer register "My shop"` registers it.'
            raise Stop(f"no marketer {self.name!r} is on this home", step)
        return str(json.loads(self._file.read_text())["marketer"])

    def settings(self, address: str) -> Settings:
        """What the SDK needs to know. Raises Stop."""
        return Settings(
            address=address,
            marketer=self.marketer(),
            signing_key_file=self._signing_key,
            sealing_key_file=self._sealing_key,
            trust_file=self.home.trust,
            policy_file=self.home.policy,
        )

    def environment(self, address: str) -> str:
        """The same as lines for a shell."""
        settings = self.settings(address)
        variables = {
            "PARLEY_ADDRESS": settings.address,
            "PARLEY_MARKETER": settings.marketer,
            "PARLEY_SIGNING_KEY_FILE": settings.signing_key_file,
            "PARLEY_SEALING_KEY_FILE": settings.sealing_key_file,
            "PARLEY_TRUST_FILE": settings.trust_file,
            "PARLEY_POLICY_FILE": settings.policy_file,
        }
        return "".join(f"export {name}={shlex.quote(str(value))}\n" for name, value in variables.items())

    @property
    def _signing_key(self) -> Path:
        return self.folder / "signing.key"

    @property
    def _sealing_key(self) -> Path:
        return self.folder / "sealing.key"


def marketer_name(home: Home, given: str, complete: Callable[[str], str | None]) -> str:
    """Read a marketer's name, or what it is called on this machine. Raises Stop for neither."""
    if name := complete(given):
        return name
    return MarketerFile(home, given).marketer()
