import hashlib

import pytest

from parley_bus.users import User, meaning, rules

OWN = "+xadd +xtrim +xrange +xinfo|stream +xinfo|groups +xpending +xgroup|create +del"
OTHERS = "+xreadgroup +xautoclaim +xack"


def test_user_writes_its_own_stream_and_reads_those_it_is_a_reader_of() -> None:
    user = User("consent", "parley_consent", "secret", reads=("identity", "audit"))
    assert rules(user) == [
        "reset",
        "resetchannels",
        "on",
        f"#{hashlib.sha256(b'secret').hexdigest()}",
        *("+ping", "+multi", "+exec"),
        f"(resetchannels ~parley.consent.v1:{{0}} {OWN})",
        f"(resetchannels ~parley.identity.v1:{{0}} {OTHERS})",
        f"(resetchannels ~parley.audit.v1:{{0}} {OTHERS})",
    ]


@pytest.mark.parametrize(
    ("whole", "selector"),
    [
        ("on {} resetchannels -@all +ping +multi +exec", "~{} resetchannels -@all"),  # Redis 7.0
        ("on sanitize-payload {} resetchannels -@all +ping +multi +exec", "~{} resetchannels -@all"),
        (
            "on sanitize-payload {} resetchannels alldbs -@all +ping +multi +exec",
            "~{} resetchannels alldbs -@all",
        ),  # Valkey 9.1.0
    ],
)
def test_rules_are_known_again_as_servers_write_them(whole: str, selector: str) -> None:
    user = User("consent", "parley_consent", "secret", reads=("audit",))
    digest = f"#{hashlib.sha256(b'secret').hexdigest()}"
    own = f"({selector.format('parley.consent.v1:{0}')} {OWN})"
    other = f"({selector.format('parley.audit.v1:{0}')} {OTHERS})"
    assert meaning(" ".join(rules(user))) == meaning(f"{whole.format(digest)} {own} {other}")
    assert meaning(" ".join(rules(user))) != meaning(f"{whole.format(digest)} {own} ({other[1:-1]} +get)")


def test_password_is_in_no_text_of_a_user() -> None:
    assert "secret" not in repr(User("vault", "parley_vault", "secret"))
