"""
The trust file: the public keys that everything else is checked with, as a JSON Web Key Set (RFC 7517, RFC 8037).

Each key names the zone whose it is in ``parley_zone``. Services read the file at start; marketers and verifiers pin it.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parley_crypto.jws import Keys
from parley_crypto.signing import check_signing_key, key_id


class TrustUnusable(ValueError):
    """The trust file is missing, or not a key set."""


@dataclass(frozen=True)
class Trust:
    """Public keys by zone: Ed25519 keys that sign, and audit's X25519 key that details are sealed to."""

    signing: Mapping[str, Keys]
    sealing: Mapping[str, bytes]

    @classmethod
    def load(cls, path: Path) -> "Trust":
        """Read a trust file. Raises TrustUnusable."""
        try:
            return cls.parse(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise TrustUnusable(f"{path}: can't be read; `parley up` writes one") from error

    @classmethod
    def parse(cls, text: str) -> "Trust":
        """Read a key set. Raises TrustUnusable."""
        signing: dict[str, dict[str, bytes]] = {}
        sealing: dict[str, bytes] = {}
        try:
            for jwk in json.loads(text)["keys"]:
                public = base64.urlsafe_b64decode(jwk["x"] + "=")
                if jwk["crv"] == "Ed25519":
                    check_signing_key(public)
                    signing.setdefault(jwk["parley_zone"], {})[key_id(public)] = public
                elif jwk["crv"] == "X25519" and len(public) == 32:
                    sealing[jwk["parley_zone"]] = public
                else:
                    raise TrustUnusable("keys are Ed25519 or X25519, of 32 bytes")
        except (ValueError, KeyError, TypeError, binascii.Error) as error:
            raise TrustUnusable("not a key set with zones") from error
        return cls(signing, sealing)

    def keys(self, zone: str) -> Keys:
        """The keys a zone signs with, by id; none for a zone that isn't there."""
        return self.signing.get(zone, {})

    def dump(self) -> str:
        """The file's text."""
        keys = [_jwk(zone, public, "Ed25519") for zone, ring in self.signing.items() for public in ring.values()]
        keys += [_jwk(zone, public, "X25519") for zone, public in self.sealing.items()]
        return json.dumps({"keys": keys}, indent=1) + "\n"


def _jwk(zone: str, public: bytes, curve: str) -> dict[str, Any]:
    x = base64.urlsafe_b64encode(public).decode().rstrip("=")
    return {"kty": "OKP", "crv": curve, "kid": key_id(public), "x": x, "parley_zone": zone}
