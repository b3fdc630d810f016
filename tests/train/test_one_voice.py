"""Which of several processes says why they end; the store between them is a real one."""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from torch.distributed import TCPStore

import train.one_voice
from pipeline.errors import ConfigError, DictionaryError
from train.one_voice import one_voice

Fail = Callable[[int, BaseException], BaseException]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """That of one of two processes of torchrun, whose store runs here."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
    values = {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(train.one_voice, "PATIENCE", timedelta(seconds=0.3))
    handler = signal.getsignal(signal.SIGTERM)
    yield monkeypatch
    signal.signal(signal.SIGTERM, handler)
    del store


@pytest.fixture
def fail(environment: pytest.MonkeyPatch) -> Fail:
    """What comes out of an error of a rank."""

    def call(rank: int, error: BaseException) -> BaseException:
        environment.setenv("RANK", str(rank))
        with pytest.raises(BaseException) as caught, one_voice():
            raise error
        return caught.value

    return call


def is_silent(error: BaseException) -> bool:
    return isinstance(error, SystemExit) and error.code == 1


@pytest.mark.parametrize(
    "error", [ConfigError("train.k: no"), SystemExit(143), KeyboardInterrupt()]
)
def test_rank_0_speaks_and_the_others_are_silent_about_the_same(fail, error):
    assert fail(0, error) is error
    assert is_silent(fail(1, type(error)(*error.args)))


def test_rank_0_is_not_ended_before_it_has_spoken(fail):
    """torchrun sends SIGTERM as soon as the silent ones have left."""
    fail(0, ConfigError("no"))
    os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def test_what_rank_0_does_not_have_is_said(fail):
    error = ConfigError("only here")
    assert fail(1, error) is error


@pytest.mark.parametrize(
    "other", [ConfigError("a file of mine"), DictionaryError("no"), SystemExit(143)]
)
def test_what_is_not_the_same_is_said(fail, other):
    fail(0, ConfigError("no"))
    assert fail(1, other) is other


def test_what_an_earlier_attempt_said_does_not_count(fail, environment):
    fail(0, ConfigError("no"))
    environment.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    error = ConfigError("no")
    assert fail(1, error) is error


@pytest.mark.parametrize("store", ["none", "gone"])
def test_without_a_store_everyone_speaks(fail, environment, store):
    fail(0, ConfigError("no"))
    if store == "none":
        environment.setenv("TORCHELASTIC_USE_AGENT_STORE", "False")
    else:
        environment.setenv("MASTER_PORT", "9")
    error = ConfigError("no")
    assert fail(1, error) is error


def test_a_single_process_is_left_alone(fail, environment):
    environment.setenv("WORLD_SIZE", "1")
    environment.setenv("MASTER_PORT", "no number")
    error = ConfigError("no")
    assert fail(1, error) is error


def test_no_error_passes_through():
    with one_voice():
        done = True
    assert done
