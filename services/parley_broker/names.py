"""
Names that prove themselves: what the broker gave out it knows again, and nobody else could have made it.

A delivery's name is given with the delivery alone. So a marketer who names a release has been sent it, and it had settled, though
the broker may not have written that down yet.
"""

import base64
import hashlib
import hmac
from dataclasses import dataclass, field
from functools import cached_property

from parley_broker.faults import DeliveryNotFound, ResumeTokenInvalid
from parley_broker.store import Release
from parley_crypto.keyring import CiphertextInvalid, KeyRing

_MAC = 16
_PSEUDONYM_AT, _RELEASE_AT, _MAC_CHARS = 26, 58, 26
_NOTICE = 26
_RESUME = "parley/resume/v1"


@dataclass(frozen=True)
class Names:
    """
    Names of releases, and resume tokens: places in one marketer's feed.

    The places are sealed: a gap between two would tell of somebody whose release was taken off the feed.
    """

    key: bytes = field(repr=False)

    def release(self, release: Release) -> str:
        """The name of a release's delivery, without its collection."""
        said = "".join(release[1:])
        mac = base64.b32encode(self._mac(release.marketer, said)).decode().lower()
        return said + mac.rstrip("=")

    def read(self, marketer: str, name: str) -> Release | None:
        """
        The release that a name stands for; None for a notice's. Raises DeliveryNotFound for one that wasn't given out.

        A name that an earlier version gave out says no release id.
        """
        if len(name) == _NOTICE:
            return None
        said = name[:-_MAC_CHARS]
        release = Release(marketer, said[:_PSEUDONYM_AT], said[_PSEUDONYM_AT:_RELEASE_AT], said[_RELEASE_AT:])
        if not hmac.compare_digest(self.release(release).encode(), name.encode()):
            raise DeliveryNotFound
        return release

    def place(self, marketer: str, seq: int) -> str:
        """The resume token of a place."""
        return base64.urlsafe_b64encode(self._places.wrap(seq.to_bytes(8, "big"), _RESUME, marketer)).decode()

    def read_place(self, marketer: str, token: str) -> int:
        """The place of a resume token; none is the start. Raises ResumeTokenInvalid."""
        if not token:
            return 0
        try:
            place = self._places.unwrap(base64.b64decode(token, altchars=b"-_", validate=True), _RESUME, marketer)
        except (ValueError, CiphertextInvalid):  # binascii.Error is one
            raise ResumeTokenInvalid from None
        return int.from_bytes(place, "big")

    @cached_property
    def _places(self) -> KeyRing:
        """Seals places, under a key of their own."""
        return KeyRing({1: hashlib.blake2b(key=self.key, digest_size=32, person=b"parley/resume").digest()}, 1)

    def _mac(self, marketer: str, said: str) -> bytes:
        message = f"{marketer}{said}".encode()
        return hashlib.blake2b(message, digest_size=_MAC, key=self.key, person=b"parley/delivery").digest()
