"""
Releases: values on their way to one marketer, signed by the vault, then sealed to the marketer's key.

A sealed box authenticates nobody and binds nothing, so who, to whom, under which consent and until when are inside and signed.
Plaintext: ``signature64 || canonical JSON``, padded to 256 bytes so that lengths tell nothing.
"""

import json
from collections.abc import Mapping
from typing import Any

from parley_crypto.aead import pad, unpad
from parley_crypto.jws import Keys, StatementInvalid, canonical
from parley_crypto.signing import Sealer, SealInvalid, SignatureInvalid, Signer, seal, verify

_BUCKET = 256
_CONTEXT = b"parley/release/v1\n"


def seal_release(signer: Signer, sealing_key: bytes, release: Mapping[str, Any]) -> bytes:
    """Sign a release with the vault's key and seal it; ``kid`` is added to what it says."""
    body = canonical({**release, "kid": signer.key_id})
    return seal(sealing_key, pad(signer.sign(_CONTEXT + body) + body, _BUCKET))


def open_release(sealer: Sealer, sealed: bytes, keys: Keys) -> dict[str, Any]:
    """Open a release and check that a vault we trust signed it. Raises SealInvalid, StatementInvalid."""
    try:
        plain = unpad(sealer.open(sealed), _BUCKET)
        signature, body = plain[:64], plain[64:]
        release: dict[str, Any] = json.loads(body)
        verify(keys[release["kid"]], _CONTEXT + body, signature)
    except SealInvalid:
        raise
    except (SignatureInvalid, KeyError, TypeError, ValueError, RecursionError) as error:  # anyone can seal
        raise StatementInvalid("not signed by a vault that is trusted") from error
    return release
