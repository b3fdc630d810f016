"""A signal is remembered until the work asks; a second one is final; the usual handlers return."""

import signal
import subprocess
import sys
import threading

import pytest

from harvest.stopping import Stopped, stop_signal


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_the_work_where_it_asks(number, code):
    usual = signal.getsignal(number)
    with stop_signal() as stop:
        stop.raise_if_set()
        signal.raise_signal(number)
        with pytest.raises(Stopped) as stopped:
            stop.raise_if_set()
    assert stopped.value.exit_code == code
    assert signal.getsignal(number) is usual


def test_outside_the_main_thread_nothing_is_listened_to():
    usual = signal.getsignal(signal.SIGTERM)
    seen = []

    def look():
        with stop_signal() as stop:
            seen.append(signal.getsignal(signal.SIGTERM))
            stop.raise_if_set()

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [usual]


def test_what_is_ignored_stays_ignored():
    usual = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_signal() as stop:
            signal.raise_signal(signal.SIGINT)
            stop.raise_if_set()
    finally:
        signal.signal(signal.SIGINT, usual)


def test_the_same_signal_twice_ends_the_process_at_once():
    script = """
import signal
from harvest.stopping import stop_signal
with stop_signal():
    signal.raise_signal(signal.SIGTERM)
    print("asked once", flush=True)
    signal.raise_signal(signal.SIGTERM)
    print("still here")
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert ended.returncode == -signal.SIGTERM
    assert ended.stdout == "asked once\n"
