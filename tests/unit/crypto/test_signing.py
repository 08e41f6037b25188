import time
from hashlib import blake2b
from pathlib import Path

import pytest
from nacl.bindings import crypto_box_beforenm, crypto_core_ed25519_add, crypto_core_ed25519_is_valid_point
from nacl.public import Box, PrivateKey, PublicKey

from parley_crypto import signing
from parley_crypto.signing import (
    KeyInvalid,
    Sealer,
    SealInvalid,
    SignatureInvalid,
    Signer,
    check_sealing_key,
    check_signing_key,
    key_id,
    seal,
    verify,
)
from tests.unit.crypto.makers import OTHER_SEALER, SEALER, SIGNER, STRANGER, flips

P = 2**255 - 19
OLDER = "38cc6c99fa2bc446740db8294650abfead01be3bac379eb9dc2219de80434a00f9efa19bcc670960649fdd5a4ebf565702d22414b56a"
"""libsodium's crypto_box_seal of "secret" to the key of makers.SEALER."""
L = 2**252 + 27742317777372353535851937790883648493
ORDER_8 = [
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
]
# RFC 8032, section 7.1, tests 1 to 3: seed, public key, message, signature.
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe246"
            "55141438e7a100b"
        ),
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb"
            "00d291612bb0c00"
        ),
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc"
            "027beceea1ec40a"
        ),
    ),
]
# RFC 7748, section 6.1: Bob's private and public key.
RFC_7748 = (
    "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
    "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
)


def number(value: int) -> bytes:
    return value.to_bytes(32, "little")


def with_sign(point: bytes) -> bytes:
    return point[:31] + bytes([point[31] | 0x80])


# The eight points of small order, in each of their encodings, as libsodium lists them (ge25519_has_small_order).
SMALL_ED25519 = [number(value) for value in (0, 1, P - 1, P, P + 1)] + [bytes.fromhex(text) for text in ORDER_8]
# The same of Curve25519 (x25519 has_small_order), among them the ones that are not canonical.
SMALL_X25519 = [
    *(number(value) for value in (0, 1, P - 1, P, P + 1, 2 * P - 1, 2 * P, 2 * P + 1)),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("cdeb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b880"),
    bytes.fromhex("4c9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f11d7"),
]


@pytest.mark.parametrize(("seed", "public", "message", "signature"), RFC_8032)
def test_signatures_are_the_standards(seed: str, public: str, message: str, signature: str) -> None:
    signer = Signer(bytes.fromhex(seed))

    assert public == signer.public_key.hex()
    assert signature == signer.sign(bytes.fromhex(message)).hex()
    verify(signer.public_key, bytes.fromhex(message), bytes.fromhex(signature))


def test_public_sealing_keys_are_the_standards() -> None:
    assert RFC_7748[1] == Sealer(bytes.fromhex(RFC_7748[0])).public_key.hex()


def test_signature_holds_for_one_key_one_message_and_every_bit() -> None:
    signature = SIGNER.sign(b"message")
    wrong = [(STRANGER.public_key, b"message", signature), (SIGNER.public_key, b"messages", signature)]
    wrong += [
        (SIGNER.public_key, b"message", each) for each in [*flips(signature), b"", signature[:-1], signature + b"\0"]
    ]
    for public_key, message, each in wrong:
        with pytest.raises(SignatureInvalid):
            verify(public_key, message, each)


def test_signature_has_no_second_form() -> None:
    signature = SIGNER.sign(b"message")
    larger = int.from_bytes(signature[32:], "little") + L

    with pytest.raises(SignatureInvalid):
        verify(SIGNER.public_key, b"message", signature[:32] + number(larger))


@pytest.mark.parametrize("public_key", [b"", bytes(31), bytes(33), *SMALL_ED25519])
def test_nothing_is_signed_by_a_key_that_is_none(public_key: bytes) -> None:
    with pytest.raises(SignatureInvalid):
        verify(public_key, b"message", bytes(64))
    with pytest.raises(SignatureInvalid):
        verify(public_key, b"message", number(1) + bytes(32))


@pytest.mark.parametrize("point", [*SMALL_ED25519, *map(with_sign, SMALL_ED25519)], ids=bytes.hex)
def test_signing_key_of_small_order_is_refused(point: bytes) -> None:
    with pytest.raises(KeyInvalid):
        check_signing_key(point)


@pytest.mark.parametrize("beyond", range(19))
def test_signing_key_that_is_not_canonical_is_refused(beyond: int) -> None:
    for point in (number(P + beyond), with_sign(number(P + beyond))):
        with pytest.raises(KeyInvalid):
            check_signing_key(point)


@pytest.mark.parametrize("torsion", [number(P - 1), *map(bytes.fromhex, ORDER_8)])
def test_signing_key_outside_the_main_subgroup_is_refused(torsion: bytes) -> None:
    mixed = crypto_core_ed25519_add(SIGNER.public_key, torsion)

    assert not crypto_core_ed25519_is_valid_point(mixed)
    with pytest.raises(KeyInvalid):
        check_signing_key(mixed)


@pytest.mark.parametrize(
    "key", [b"", bytes(31), SIGNER.public_key + b"\0", number(2)], ids=["", "31", "33", "off curve"]
)
def test_signing_key_that_is_no_point_is_refused(key: bytes) -> None:
    with pytest.raises(KeyInvalid):
        check_signing_key(key)


@pytest.mark.parametrize("point", SMALL_X25519, ids=bytes.hex)
def test_sealing_key_of_small_order_is_refused(point: bytes) -> None:
    with pytest.raises(KeyInvalid):
        check_sealing_key(point)


def test_sealing_key_that_is_not_canonical_is_refused() -> None:
    beyond = [number(P + value) for value in range(19)]
    for key in [*beyond, with_sign(SEALER.public_key), b"\xff" * 32, b"", bytes(31), SEALER.public_key + b"\0"]:
        with pytest.raises(KeyInvalid):
            check_sealing_key(key)


def test_ordinary_keys_are_accepted() -> None:
    for index in range(32):
        check_signing_key(Signer(bytes([index]) * 32).public_key)
        check_sealing_key(Sealer(bytes([index]) * 32).public_key)


def test_sealed_box_opens_with_its_key_alone() -> None:
    sealed = seal(SEALER.public_key, b"secret")

    assert b"secret" == SEALER.open(sealed)
    assert len(b"secret") + 72 == len(sealed)
    for wrong in [*flips(sealed), *(sealed[:size] for size in range(len(sealed))), seal(OTHER_SEALER.public_key, b"s")]:
        with pytest.raises(SealInvalid):
            SEALER.open(wrong)


def test_boxes_of_one_minute_share_their_senders_key_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = seal(SEALER.public_key, b"secret"), seal(SEALER.public_key, b"secret")
    assert one[:32] == other[:32]
    assert 16 > sum(a == b for a, b in zip(one[32:], other[32:], strict=True))
    later = time.monotonic() + 60
    monkeypatch.setattr("parley_crypto.signing.time.monotonic", lambda: later)
    assert one[:32] != seal(SEALER.public_key, b"secret")[:32]
    assert one[:32] != seal(OTHER_SEALER.public_key, b"secret")[:32]


def test_box_opens_with_any_library_of_its_family() -> None:
    sealed = seal(SEALER.public_key, b"secret")
    nonce = blake2b(sealed[:32] + SEALER.public_key + sealed[32:56], digest_size=24).digest()
    assert b"secret" == Box(PrivateKey(SEALER.private_key), PublicKey(sealed[:32])).decrypt(sealed[56:], nonce)


def test_box_under_another_key_that_agrees_on_the_same_is_refused() -> None:
    sealed = seal(SEALER.public_key, b"secret")
    twin = pow(int.from_bytes(sealed[:32], "little"), -1, P).to_bytes(32, "little")  # differs by the point of order 2
    assert crypto_box_beforenm(twin, SEALER.private_key) == crypto_box_beforenm(sealed[:32], SEALER.private_key)
    with pytest.raises(SealInvalid):
        SEALER.open(twin + sealed[32:])


def test_what_an_earlier_version_sealed_opens_still() -> None:
    assert b"secret" == Sealer(bytes(range(32))).open(bytes.fromhex(OLDER))


def test_agreement_is_forgotten_when_its_minute_is_over_and_the_next_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    seal(SEALER.public_key, b"secret")
    later = time.monotonic() + 600
    monkeypatch.setattr("parley_crypto.signing.time.monotonic", lambda: later)
    seal(OTHER_SEALER.public_key, b"secret")
    assert [OTHER_SEALER.public_key] == list(signing._agreements)


def test_key_ids_are_16_characters_of_the_public_keys_hash() -> None:
    assert "kzdvvj2umnduyauf" == key_id(SIGNER.public_key) == SIGNER.key_id
    assert key_id(SEALER.public_key) == SEALER.key_id
    assert 64 == len({key_id(bytes([index]) * 32) for index in range(64)})


def test_secrets_are_in_no_printed_form() -> None:
    assert ("Signer()", "Sealer()") == (repr(SIGNER), repr(SEALER))


def test_keys_are_loaded_from_their_files(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.touch(0o600)
    path.write_text(f"1 {'A' * 43}=\n2 {'BwcH' * 10}Bwc=\n")

    assert (Signer(b"\7" * 32), Sealer(b"\7" * 32)) == (Signer.load(path), Sealer.load(path))
