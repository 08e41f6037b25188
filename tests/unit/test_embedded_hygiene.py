"""The rules of a test run."""

import re
import socket

import pytest

from tests.support.hygiene import NetworkForbiddenError, allowed_skips, is_allowed, is_local, judge, unwanted


def test_settings_of_parley_are_hidden_from_tests_but_for_the_few_meant_for_them() -> None:
    kept = ["PARLEY_DATA", "PARLEY_VECTORS", "PARLEY_SERVERS", "PARLEY_POSTGRES_URL", "PARLEY_VALKEY_URL", "PATH"]
    hidden = ["PARLEY_FAULTS", "PARLEY_DATABASE", "PARLEY_URL_FILE"]
    assert unwanted(dict.fromkeys([*kept, *hidden], "x")) == hidden


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_this_machine_may_be_reached(host: str) -> None:
    assert is_local(socket.AF_INET, (host, 80))


@pytest.mark.parametrize(
    "host", ["10.0.0.1", "93.184.216.34", "2001:db8::1", "example.com", "0.0.0.0", "localhost.example.com", ""]
)
def test_no_other_machine_may_be_reached(host: str) -> None:
    assert not is_local(socket.AF_INET6, (host, 80))


def test_unix_sockets_may_be_reached() -> None:
    assert is_local(socket.AF_UNIX, "/run/x.sock")


@pytest.mark.parametrize("way", ["connect", "connect_ex"])
def test_guard_stands_while_tests_run(way: str) -> None:
    with socket.socket() as outward, pytest.raises(NetworkForbiddenError):
        getattr(outward, way)(("192.0.2.1", 9))


def test_skip_is_allowed_only_when_its_whole_reason_is_listed() -> None:
    patterns = [re.compile("needs root")]
    assert is_allowed("needs root", patterns)
    assert not is_allowed("needs root, or does it", patterns)


def skipped(reason: str) -> pytest.TestReport:
    return pytest.TestReport("x", ("x.py", 0, "x"), {}, "skipped", ("x.py", 1, f"Skipped: {reason}"), "setup")


def test_unlisted_skip_fails_in_ci() -> None:
    judged = judge(skipped("no servers"), {"CI": "true"})
    assert judged.failed
    assert "no servers" in str(judged.longrepr)


def test_listed_skip_stays_a_skip_in_ci() -> None:
    assert judge(skipped("needs root"), {"CI": "true"}).skipped


def test_any_skip_stays_a_skip_outside_ci() -> None:
    assert judge(skipped("no servers"), {}).skipped


def test_expected_failure_is_no_skip() -> None:
    report = skipped("reason")
    report.wasxfail = "reason"
    assert judge(report, {"CI": "true"}).skipped


def test_list_of_allowed_skips_leaves_comments_out() -> None:
    assert "PARLEY_VECTORS is not set" in [pattern.pattern for pattern in allowed_skips()]
    assert not [pattern for pattern in allowed_skips() if pattern.pattern.startswith("#")]
