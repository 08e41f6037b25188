from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from parley_crypto.certificates import LIFE, check
from parley_crypto.keyfiles import KeyFileUnusable
from parley_node.home import Home
from parley_node.provision import certify, key_file, provision, zone_keys
from parley_node.services import SERVICES

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    provision(made)
    return made


def _files(home: Home) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in home.root.rglob("*") if path.is_file()}


def test_every_secret_is_its_owners_alone_and_stays_as_it_is(home: Home) -> None:
    certify(home, NOW)
    before = _files(home)
    provision(home)
    certify(home, NOW + timedelta(days=1))
    assert before == _files(home)
    for zone in SERVICES:
        certificate = home.tls_certificate(zone)
        secrets = [path for path in home.keys(zone).iterdir() if path != certificate]
        assert {0o600} == {path.stat().st_mode & 0o777 for path in secrets}
        assert {*zone_keys(home, zone).values()} < {*secrets}


@pytest.mark.parametrize("lost", ["keys/vault/master.key", "keys/audit/log.key", "keys/staff/operator.key"])
def test_key_that_is_lost_is_not_replaced(home: Home, lost: str) -> None:
    (home.root / lost).unlink()
    with pytest.raises(KeyFileUnusable, match=f"{lost}: it is gone; restore it from your backup"):
        provision(home)
    assert not (home.root / lost).exists()


@pytest.mark.parametrize("left", ["servers/postgres/PG_VERSION", "published/checkpoint"])
def test_key_is_not_replaced_either_where_only_what_stands_on_it_was_restored(home: Home, left: str) -> None:
    home.trust.unlink()
    key_file(home, "vault", "master").unlink()
    (home.root / left).parent.mkdir(parents=True, exist_ok=True)
    (home.root / left).touch()
    with pytest.raises(KeyFileUnusable, match="it is gone"):
        provision(home)


def test_home_whose_making_was_cut_short_gets_its_other_keys(home: Home) -> None:
    before = _files(home)
    home.trust.unlink()
    key_file(home, "audit", "log").unlink()
    provision(home)
    changed = {path for path, content in _files(home).items() if before[path] != content}
    assert {key_file(home, "audit", "log"), home.policy} == changed


@pytest.mark.parametrize("missing", ["authority.pem", "keys/vault/tls.key", "keys/audit/tls.pem"])
def test_all_certificates_are_made_anew_where_one_is_missing(home: Home, missing: str) -> None:
    certify(home, NOW)
    before = {zone: home.tls_certificate(zone).read_bytes() for zone in SERVICES}
    (home.root / missing).unlink()
    certify(home, NOW)
    assert not set(before.values()) & {home.tls_certificate(zone).read_bytes() for zone in SERVICES}


def test_certificates_are_made_anew_half_a_life_before_they_end(home: Home) -> None:
    certify(home, NOW)
    before = home.tls_authority.read_bytes()
    certify(home, NOW + LIFE / 2 - timedelta(days=1))
    assert before == home.tls_authority.read_bytes()
    certify(home, NOW + LIFE / 2 + timedelta(days=1))
    assert before != home.tls_authority.read_bytes()


def test_checkpoint_of_an_earlier_release_moves_to_its_directory(home: Home) -> None:
    (home.root / "published-checkpoint").write_text("kept")
    provision(home)
    assert "kept" == home.published.read_text()
    assert not (home.root / "published-checkpoint").exists()


@pytest.mark.parametrize("left", [0, 40, -40], ids=["nothing", "its beginning", "nearly all"])
@pytest.mark.parametrize("of", ["authority.pem", "keys/vault/tls.pem", "keys/broker/tls.key"])
def test_certificates_of_which_one_was_cut_short_are_made_again(home: Home, of: str, left: int) -> None:
    certify(home, NOW)
    whole = home.tls_authority.read_bytes()
    (home.root / of).write_bytes((home.root / of).read_bytes()[:left])
    certify(home, NOW)
    again = home.tls_authority.read_bytes()
    assert again != whole
    for zone in SERVICES:
        check(home.tls_certificate(zone).read_bytes(), home.tls_key(zone).read_bytes(), again)
