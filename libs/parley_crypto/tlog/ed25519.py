"""Ed25519 (RFC 8032) as the log uses it: 32-byte seeds, checked public keys, 64-byte detached signatures."""

from nacl import bindings
from nacl.exceptions import BadSignatureError

from parley_crypto.tlog.errors import KeyInvalid

SEED_SIZE = bindings.crypto_sign_SEEDBYTES
PUBLIC_SIZE = bindings.crypto_sign_PUBLICKEYBYTES
SIGNATURE_SIZE = bindings.crypto_sign_BYTES


def public_key(seed: bytes) -> bytes:
    """Derive the 32-byte public key. Raises KeyInvalid for a seed of another length."""
    if len(seed) != SEED_SIZE:
        raise KeyInvalid("an Ed25519 seed has 32 bytes")
    return bytes(bindings.crypto_sign_seed_keypair(seed)[0])


def check_public_key(public: bytes) -> None:
    """Refuse a key that is not canonical, of small order, or off the main subgroup. Raises KeyInvalid."""
    # Libraries differ on such keys, and a small-order key lets one signature fit many texts.
    if len(public) != PUBLIC_SIZE or not bindings.crypto_core_ed25519_is_valid_point(public):
        raise KeyInvalid("not a sound Ed25519 public key")


def sign(seed: bytes, message: bytes) -> bytes:
    """Sign, giving the 64-byte signature alone."""
    secret = bindings.crypto_sign_seed_keypair(seed)[1]
    return bytes(bindings.crypto_sign(message, secret)[:SIGNATURE_SIZE])


def verifies(public: bytes, message: bytes, signature: bytes) -> bool:
    """Tell whether the signature is the key's over the message; a wrong length is simply no."""
    if len(signature) != SIGNATURE_SIZE:
        return False
    try:
        bindings.crypto_sign_open(signature + message, public)
    except BadSignatureError:
        return False
    return True
