import os
import signal
import time

import pytest

from configs.errors import ConfigError, RunError
from ensemble.commands.search.forks import CRASHED, Forks, end_child


def exit_code(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_child_answers():
    secret = {"size": 3}

    assert Forks().call(lambda: (os.getpid() != os.getppid(), secret)) == (True, {"size": 3})


def test_a_users_mistake_in_a_child_is_the_parents():
    def fail() -> None:
        raise ConfigError("There is no such thing.")

    with pytest.raises(ConfigError, match="no such thing"):
        Forks().call(fail)


def test_a_child_that_is_killed_gives_no_answer():
    with pytest.raises(RunError, match="ended before it had an answer"):
        Forks().call(lambda: os.kill(os.getpid(), signal.SIGKILL))


def test_exit_codes_and_output_are_those_of_the_function(tmp_path):
    def work() -> int:
        os.write(1, b"done")
        return 7

    def crash() -> int:
        raise OSError("broken")

    path = tmp_path / "worker.log"
    forks = Forks()

    assert exit_code(forks.start(work, output=path)) == 7
    assert exit_code(forks.start(crash, output=path)) == CRASHED
    assert path.read_text() == "done"


def test_children_end_when_their_parent_is_killed():
    reading, writing = os.pipe()

    def parent() -> int:
        forks = Forks()
        for _ in range(2):
            forks.start(lambda: time.sleep(600) or 0)
        os.write(writing, b"started")
        time.sleep(600)
        return 0

    child = Forks().start(parent)
    os.read(reading, 7)
    os.close(writing)  # now only the children hold it

    end_child(child)

    assert os.read(reading, 1) == b""  # the end of the file: all of them are gone
    os.close(reading)
