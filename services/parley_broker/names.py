"""
Names that prove themselves: what the broker gave out it knows again, and nobody else could have made it.

A delivery's name is given with the delivery alone. So a marketer who names a release has been sent it, and it had settled, though
the broker may not have written that down yet.
"""

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass, field

from parley_broker.faults import DeliveryNotFound, ResumeTokenInvalid
from parley_broker.store import Key

_MAC = 16
_ID, _PSEUDONYM, _NOTICE = 26, 32, 26


@dataclass(frozen=True)
class Names:
    """Names of releases, and resume tokens: places in one marketer's feed."""

    key: bytes = field(repr=False)

    def release(self, key: Key) -> str:
        """The name of a release's delivery, without its collection."""
        marketer, exchange_id, pseudonym = key
        mac = base64.b32encode(self._mac(b"parley/delivery", marketer, exchange_id + pseudonym)).decode().lower()
        return f"{exchange_id}{pseudonym}{mac.rstrip('=')}"

    def read(self, marketer: str, name: str) -> Key | None:
        """The release that a name stands for; None for a notice's. Raises DeliveryNotFound for one that wasn't given out."""
        if len(name) == _NOTICE:
            return None
        key = (marketer, name[:_ID], name[_ID : _ID + _PSEUDONYM])
        if not hmac.compare_digest(self.release(key).encode(), name.encode()):
            raise DeliveryNotFound
        return key

    def place(self, marketer: str, seq: int) -> str:
        """The resume token of a place."""
        place = seq.to_bytes(8, "big")
        return base64.urlsafe_b64encode(place + self._mac(b"parley/resume", marketer, place)).decode()

    def read_place(self, marketer: str, token: str) -> int:
        """The place of a resume token; none is the start. Raises ResumeTokenInvalid."""
        if not token:
            return 0
        try:
            raw = base64.urlsafe_b64decode(token.encode())
        except (binascii.Error, UnicodeEncodeError):
            raise ResumeTokenInvalid from None
        if len(raw) != 8 + _MAC or not hmac.compare_digest(raw[8:], self._mac(b"parley/resume", marketer, raw[:8])):
            raise ResumeTokenInvalid
        return int.from_bytes(raw[:8], "big")

    def _mac(self, person: bytes, marketer: str, what: bytes | str) -> bytes:
        message = marketer.encode() + (what.encode() if isinstance(what, str) else what)
        return hashlib.blake2b(message, digest_size=_MAC, key=self.key, person=person).digest()
