"""Settings: what is wrong is named, what is meant is told, and what was given is in no message."""

import pytest

from parley_broker.config import Config
from parley_rpc.settings import SettingsWrong, read_settings

ALL = {"postgres_dsn": "postgresql:///x", "request_key": "k", "trust": "t"}


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("PARLEY_BROKER_BACTH", "PARLEY_BROKER_BATCH"),
        ("PARLEY_BROKER_HEART_BEAT", "PARLEY_BROKER_HEARTBEAT"),
        ("parley_broker_batches", "PARLEY_BROKER_BATCH"),
    ],
)
def test_what_misses_its_name_is_told_which_was_meant(
    monkeypatch: pytest.MonkeyPatch, variable: str, meant: str
) -> None:
    monkeypatch.setenv(variable, "secret")
    with pytest.raises(SettingsWrong) as caught:
        read_settings(Config, ALL)
    assert str(caught.value) == f"{variable}: no such setting; {meant} is one"


@pytest.mark.parametrize(
    "variable",
    [
        "PARLEY_BROKER_PORT",
        "PARLEY_BROKER_PORT_9090_TCP_ADDR",
        "PARLEY_BROKER_SERVICE_HOST",
        "PARLEY_BROKER_BATCHES_SERVICE_PORT_GRPC",
        "PARLEY_BROKER_HEARTBEAT_PORT",
        "PARLEY_BROKER_BATCH_PORT_9090_TCP",
        "PARLEY_VAULT_BACTH",
        "PARLEY_BROKERS_BATCH",
        "BATCH",
    ],
)
def test_what_kubernetes_and_others_set_is_nobodys_mistake(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "tcp://10.0.0.1:9090")
    assert read_settings(Config, ALL).batch == 100


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("PARLEY_BROKER_BATCH", "0", "PARLEY_BROKER_BATCH: Input should be greater than or equal to 1"),
        ("PARLEY_BROKER_BATCH", "501", "PARLEY_BROKER_BATCH: Input should be less than or equal to 500"),
        ("PARLEY_BROKER_HEARTBEAT", "PT0S", "PARLEY_BROKER_HEARTBEAT: Input should be greater than 0 seconds"),
        ("PARLEY_BROKER_HEARTBEAT", "soon", "PARLEY_BROKER_HEARTBEAT: .*write durations as PT30S"),
    ],
)
def test_what_no_service_could_work_with_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsWrong, match=f"^{said}"):
        read_settings(Config, ALL)
