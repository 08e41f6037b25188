"""How long an answer takes that says nothing: as long as any of late, within bounds."""

from parley_broker.answering import Silence


def test_silence_is_never_short() -> None:
    silence = Silence()
    silence.note(0.01)

    assert 0.3 == silence.seconds


def test_silence_is_longer_than_any_answer_of_late() -> None:
    silence = Silence()
    for took in (0.1, 0.8, 0.2):
        silence.note(took)

    assert 0.8 < silence.seconds < 2.0


def test_silence_has_an_end() -> None:
    silence = Silence()
    silence.note(60)

    assert 2.0 == silence.seconds


def test_what_was_slow_long_ago_is_forgotten() -> None:
    silence = Silence()
    for took in (1.0, *[0.01] * 64):
        silence.note(took)

    assert 0.3 == silence.seconds
