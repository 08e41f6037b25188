"""Operators and importers: the few who act for the intermediary, listed in a file with their public keys."""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from parley_crypto.jws import Keys
from parley_crypto.signing import KeyInvalid, check_signing_key, key_id

_KINDS = {"operators": "operator", "importers": "importer"}
_NAME = re.compile(r"(operators|importers)/[a-z0-9][a-z0-9-]{0,62}")


class StaffUnusable(ValueError):
    """The file of operators and importers isn't one."""


@dataclass(frozen=True)
class Staff:
    """Who may sign in as operator or importer: their Ed25519 public keys by resource name."""

    members: Mapping[str, bytes]

    @classmethod
    def parse(cls, text: str) -> "Staff":
        """Read ``{"operators/NAME": base64 key, "importers/NAME": ...}``. Raises StaffUnusable."""
        try:
            members = {name: base64.b64decode(key, validate=True) for name, key in json.loads(text).items()}
            for public_key in members.values():
                check_signing_key(public_key)
        except (ValueError, TypeError, AttributeError, binascii.Error, KeyInvalid) as error:
            raise StaffUnusable("not a JSON object of names and base64 Ed25519 public keys") from error
        if strange := [name for name in members if not _NAME.fullmatch(name)]:
            raise StaffUnusable(f"{strange[0]!r} is neither operators/NAME nor importers/NAME")
        return cls(members)

    def keys(self, name: str) -> Keys:
        """The key of a member, by id; none for who isn't one."""
        key = self.members.get(name)
        return {key_id(key): key} if key else {}


def kind_of(name: str) -> str:
    """``operator`` or ``importer``: what a member's token says."""
    return _KINDS[name.partition("/")[0]]
