"""Keys for every zone: made once, each zone's own in a directory of its own; what is public is written beside."""

import base64
import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from parley_audit.policy import policy_text
from parley_crypto.certificates import LIFE, check, end_of, issue
from parley_crypto.keyfiles import KeyFileUnusable, ensure_key, ensure_secret, read_key, read_secret, write_key
from parley_crypto.signing import Sealer, Signer
from parley_crypto.tlog.note import PrivateKey
from parley_crypto.trust import Trust
from parley_node.embedded.passwords import ensure_password, ensure_pgpass
from parley_node.home import Home
from parley_node.services import SERVICES

ORIGIN = "parley.local/log"

_OWN_KEYS: Mapping[str, tuple[str, ...]] = {
    "identity": ("signing", "wrap", "pseudonym", "row", "ref-identity", "request"),
    "vault": ("signing", "master", "order", "request"),
    "consent": ("signing", "request"),
    "broker": ("request",),
    "audit": ("master", "sealing", "log"),
}
_SHARED_KEYS = (
    # Each is shared by identity and exactly one other zone: (identity's name for it, the other zone, its name there).
    ("ref-vault", "vault", "ref"),
    ("ref-consent", "consent", "ref"),
    ("ref-audit", "audit", "ref"),
    ("candidate", "vault", "candidate"),
)
_STAFF = {"operators/local": "operator", "importers/local": "importer"}


def provision(home: Home) -> None:
    """
    Make the keys of a new home, and write trust, policy and staff files. What is there stays.

    Raises KeyFileUnusable where a key is gone that the home had, or others may read a password.
    """
    home.make()
    own = [key_file(home, zone, name) for zone, names in _OWN_KEYS.items() for name in names]
    shared = [key_file(home, "identity", name) for name, _, _ in _SHARED_KEYS]
    for path in (*own, *shared, *(home.staff_key(name) for name in _STAFF.values())):
        _make_key(home, path)
    for name, zone, there in _SHARED_KEYS:
        _share(key_file(home, "identity", name), key_file(home, zone, there))
    for zone in SERVICES:
        ensure_pgpass(home.postgres_password(zone), f"parley_{zone}")
        ensure_password(home.valkey_password(zone))
        for path in (home.postgres_password(zone), home.valkey_password(zone)):
            read_secret(path)  # refuses one that others may read
    _write(home.staff, _staff(home))
    _write(home.policy, policy_for(home))
    _keep_published(home)
    _write(home.trust, _trust(home).dump())  # last: from then on the home has had all its keys


def had_keys(home: Home) -> bool:
    """Whether all keys of a home were made before: what is missing now is lost."""
    stands_on_them = home.servers.is_dir() and any(home.servers.iterdir())
    return home.trust.exists() or home.published.exists() or stands_on_them


def policy_for(home: Home) -> str:
    """The policy by which receipts of this home's log key are checked. Raises KeyFileUnusable."""
    return policy_text(PrivateKey(ORIGIN, read_key(key_file(home, "audit", "log"))).vkey()).decode()


def key_file(home: Home, zone: str, name: str) -> Path:
    """Where a zone's key is."""
    return home.keys(zone) / f"{name}.key"


def certify(home: Home, now: datetime) -> None:
    """
    Give every zone a certificate, unless each has one that is good for half a life yet.

    All are made together, as the authority that signs them forgets its key; its own certificate is written last, so that what
    was cut short is seen.
    """
    if _certified(home, now + LIFE / 2):
        return
    home.tls_authority.unlink(missing_ok=True)
    issued = issue(SERVICES, now)
    for zone, leaf in issued.leaves.items():
        home.tls_key(zone).unlink(missing_ok=True)
        ensure_secret(home.tls_key(zone), leaf.key.decode)
        home.tls_certificate(zone).write_bytes(leaf.certificate)
    home.tls_authority.write_bytes(issued.authority)


def _certified(home: Home, until: datetime) -> bool:
    """Whether all have one that is good until then; what was cut short or is missing is none."""
    with suppress(FileNotFoundError, ValueError):
        authority = home.tls_authority.read_bytes()
        for zone in SERVICES:
            check(home.tls_certificate(zone).read_bytes(), home.tls_key(zone).read_bytes(), authority)
        return end_of(authority) > until
    return False


def zone_keys(home: Home, zone: str) -> dict[str, Path]:
    """A zone's keys, by the setting that names each."""
    shared = [name for name, _, _ in _SHARED_KEYS if zone == "identity"]
    held = [there for _, other, there in _SHARED_KEYS if zone == other]
    names = [*_OWN_KEYS[zone], *shared, *held]
    return {f"{name.replace('-', '_')}_key": key_file(home, zone, name) for name in names}


def key_files(home: Home) -> list[Path]:
    """Every key that a provisioned home has."""
    zones = [path for zone in SERVICES for path in zone_keys(home, zone).values()]
    return [*zones, *(home.staff_key(name) for name in _STAFF.values())]


def secret_files(home: Home) -> list[Path]:
    """Passwords and keys of certificates; those of certificates are made once services run apart."""
    return [path(zone) for path in (home.postgres_password, home.valkey_password, home.tls_key) for zone in SERVICES]


def _make_key(home: Home, path: Path) -> None:
    if had_keys(home) and not path.exists():
        # Another one in its place would read nothing of what is there, and sign what nobody believes.
        raise KeyFileUnusable(f"{path}: it is gone; restore it from your backup")
    ensure_key(path)


def _share(source: Path, copy: Path) -> None:
    copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_key(copy, read_key(source))


def _keep_published(home: Home) -> None:
    """Make the directory for what audit publishes, and move there what an earlier release kept beside everything else."""
    home.published.parent.mkdir(mode=0o700, exist_ok=True)
    before = home.root / "published-checkpoint"
    if before.exists() and not home.published.exists():
        before.replace(home.published)


def _trust(home: Home) -> Trust:
    signers = {zone: Signer.load(key_file(home, zone, "signing")) for zone in ("identity", "vault", "consent")}
    return Trust(
        signing={zone: {signer.key_id: signer.public_key} for zone, signer in signers.items()},
        sealing={"audit": Sealer.load(key_file(home, "audit", "sealing")).public_key},
    )


def _staff(home: Home) -> str:
    keys = {
        name: base64.b64encode(Signer.load(home.staff_key(role)).public_key).decode() for name, role in _STAFF.items()
    }
    return json.dumps(keys, indent=1) + "\n"


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
