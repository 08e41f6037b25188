import json
from pathlib import Path
from typing import Any

import pytest

from parley_crypto.trust import Trust, TrustUnusable
from tests.unit.crypto.makers import SEALER, SIGNER, STRANGER

TRUST = Trust(
    {
        "identity": {SIGNER.key_id: SIGNER.public_key, STRANGER.key_id: STRANGER.public_key},
        "vault": {SIGNER.key_id: SIGNER.public_key},
    },
    {"audit": SEALER.public_key},
)
# RFC 8037, appendix A.2.
RFC_X = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"


def jwk(**parts: Any) -> str:
    whole = {"kty": "OKP", "crv": "Ed25519", "x": RFC_X, "parley_zone": "identity"} | parts
    return json.dumps({"keys": [{name: part for name, part in whole.items() if part is not None}]})


def test_key_set_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "trust.json"
    path.write_text(TRUST.dump())

    assert TRUST == Trust.load(path)


def test_published_key_is_read() -> None:
    (key,) = Trust.parse(jwk()).keys("identity").values()

    assert "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a" == key.hex()


def test_keys_are_named_by_what_they_are_and_not_by_what_the_file_calls_them() -> None:
    assert ["kid"] != list(Trust.parse(jwk(kid="kid")).keys("identity"))


def test_zone_that_is_not_there_has_no_keys() -> None:
    assert {} == TRUST.keys("broker")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        "null",
        '{"keys": 1}',
        '{"keys": ["key"]}',
        jwk(x=None),
        jwk(crv=None),
        jwk(parley_zone=None),
        jwk(parley_zone=["identity"]),
        jwk(x=5),
        jwk(x="ü"),
        jwk(x=RFC_X[:-2]),
        jwk(x=RFC_X + RFC_X),
        jwk(x="A" * 43),
        jwk(crv="X25519", x=RFC_X + "AAAA"),
        jwk(crv="X25519", x=RFC_X[:-4]),
        jwk(crv="P-256"),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(TrustUnusable):
        Trust.parse(text)


def test_file_that_can_not_be_read_is_named_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "trust.json"
    with pytest.raises(TrustUnusable, match=r"trust\.json.*parley up"):
        Trust.load(path)
    path.write_bytes(b"\xff")
    with pytest.raises(TrustUnusable, match=r"trust\.json"):
        Trust.load(path)
