import hashlib

from parley_bus.users import User, rules

OWN = "+xadd +xtrim +xrange +xinfo|stream +xinfo|groups +xpending +xgroup|create +del"
OTHERS = "+xreadgroup +xautoclaim +xack"


def test_user_writes_its_own_stream_and_reads_those_it_is_a_reader_of() -> None:
    user = User("consent", "parley_consent", "secret", reads=("identity", "audit"))
    assert rules(user) == [
        "reset",
        "on",
        f"#{hashlib.sha256(b'secret').hexdigest()}",
        *("+ping", "+multi", "+exec", "+client|setinfo"),
        f"(~parley.consent.v1:{{0}} {OWN})",
        f"(~parley.identity.v1:{{0}} {OTHERS})",
        f"(~parley.audit.v1:{{0}} {OTHERS})",
    ]


def test_password_is_in_no_text_of_a_user() -> None:
    assert "secret" not in repr(User("vault", "parley_vault", "secret"))
