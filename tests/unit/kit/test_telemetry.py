import pytest

from parley_kit.telemetry import is_traceparent

_TRACE, _SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def test_traceparent_as_the_standard_shows_it_is_one() -> None:
    assert is_traceparent(f"00-{_TRACE}-{_SPAN}-01")


@pytest.mark.parametrize(
    "text",
    [
        "",
        b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        f"01-{_TRACE}-{_SPAN}-01",
        f"00-{_TRACE.upper()}-{_SPAN}-01",
        f"00-{'0' * 32}-{_SPAN}-01",
        f"00-{_TRACE}-{'0' * 16}-01",
        f"00-{_TRACE}-{_SPAN}-01-more",
        f"00-{_TRACE}-{_SPAN}",
    ],
)
def test_anything_else_is_none(text: object) -> None:
    assert not is_traceparent(text)
