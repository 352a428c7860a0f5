"""The first signal stops in good order, a second one at once, and neither stops a worker before its process."""

import os
import signal
import threading

import pytest

from hf_pmgaft import signals
from hf_pmgaft.signals import Terminated, catching_signals, raise_stop

BOTH = [signal.SIGTERM, signal.SIGINT]


@pytest.mark.parametrize("number", BOTH)
def test_a_signal_is_caught_and_what_listened_before_listens_again(number):
    before = signal.getsignal(number)
    received = []
    with catching_signals(received.append):
        signal.raise_signal(number)
    assert received == [number] and signal.getsignal(number) == before


@pytest.mark.parametrize(("number", "error"), [(signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_can_be_raised_so_that_what_cleans_up_after_ctrl_c_does(number, error):
    with pytest.raises(KeyboardInterrupt) as caught, catching_signals(raise_stop):
        signal.raise_signal(number)
    assert caught.type is error


def test_one_that_a_launcher_passes_on_is_the_same_one_and_a_later_one_ends_at_once(monkeypatch):
    received = []
    with catching_signals(received.append):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert received == [signal.SIGINT]

        monkeypatch.setattr(signals, "PASSED_ON_WITHIN", -1.0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 7)])
def test_a_worker_ends_when_its_process_ends_it_and_not_by_ctrl_c(number, code):
    with catching_signals(raise_stop):
        worker = os.fork()
        if worker == 0:
            try:
                signal.raise_signal(number)
            finally:
                os._exit(7)
        _, status = os.waitpid(worker, 0)
    assert os.waitstatus_to_exitcode(status) == code


def test_in_another_thread_nothing_changes():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work():
        with catching_signals(raise_stop):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
