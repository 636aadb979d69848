import os
import signal
import threading
from collections.abc import Iterator

import pytest

from ensemble.training.interrupts import Interrupts


@pytest.fixture(autouse=True)
def python_minds_interrupts() -> Iterator[None]:
    """A process that was started in the background ignores them, and so would the tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_first_interrupt_waits_for_the_work_in_hand():
    done = []

    with Interrupts() as interrupts:
        for item in interrupts.watch(range(10)):
            if item == 3:
                os.kill(os.getpid(), signal.SIGINT)
            done.append(item)

    assert done == [0, 1, 2, 3]
    assert interrupts.pending


def test_the_second_interrupt_acts_at_once():
    with Interrupts():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_afterwards_an_interrupt_is_what_it_was():
    with Interrupts() as interrupts:
        assert not interrupts.pending

    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_a_thread_that_gets_no_signals_works_on():
    done = []

    def work():
        with Interrupts() as interrupts:
            done.extend(interrupts.watch(range(3)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert done == [0, 1, 2]
