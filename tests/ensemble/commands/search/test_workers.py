"""Worker processes: how many there are, and that dead ones are replaced."""

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

pytest.importorskip("keras_tuner")

from configs.errors import RunError
from ensemble.commands.search import workers
from ensemble.commands.search.workers import Workers, default_workers


@pytest.fixture
def team(tmp_path):
    def start(code: str, *names: str) -> Workers:
        command = [sys.executable, "-c", code]
        environments = {name: {**os.environ, "NAME": name} for name in names}
        started.append(Workers(command, environments, tmp_path))
        return started[-1]

    started: list[Workers] = []
    yield start
    for each in started:
        each.end()


def wait(done) -> None:
    end = time.monotonic() + 20
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_dead_worker_is_started_again_under_its_name(team, tmp_path):
    code = "import os, time; print(os.environ['NAME'], os.getpid(), flush=True); time.sleep(60)"
    both = team(code, "worker0", "worker1")
    logs = [tmp_path / "worker0.log", tmp_path / "worker1.log"]

    both.watch(0)
    wait(lambda: all(log.read_text().endswith("\n") for log in logs))
    both.watch(0)
    first = logs[0].read_text().split()
    os.kill(int(first[1]), signal.SIGKILL)

    def restarted() -> bool:
        both.watch(0)
        return len(logs[0].read_text().splitlines()) == 2

    wait(restarted)
    assert first[0] == "worker0"
    assert len(logs[1].read_text().splitlines()) == 1


def test_a_worker_that_has_ended_is_not_started_again(team, tmp_path):
    one = team("print('done')", "worker0")
    log = tmp_path / "worker0.log"
    one.watch(0)
    wait(lambda: log.read_text() == "done\n")

    for _ in range(10):
        one.watch(0)
        time.sleep(0.02)

    assert log.read_text() == "done\n"


def test_a_worker_that_dies_again_and_again_ends_the_search(team):
    one = team("raise SystemExit(3)", "worker0")

    with pytest.raises(RunError, match=r"worker0 died 5 times\. .*worker0\.log"):
        wait(lambda: one.watch(0))


def test_workers_that_die_while_trials_end_are_always_replaced(team):
    one = team("raise SystemExit(3)", "worker0")
    for ended in range(12):
        one.watch(ended)
        one._processes["worker0"].wait()


def test_a_process_ends_with_what_it_depends_on(tmp_path):
    code = (
        "import sys, time; from pathlib import Path;"
        "from ensemble.commands.search.workers import end_without;"
        "end_without(Path(sys.argv[1]).exists, 0); print('ready', flush=True); time.sleep(60)"
    )
    path = tmp_path / "there"
    path.touch()
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.5)
    assert process.poll() is None

    path.unlink()

    assert process.wait(timeout=10) == 2


@pytest.mark.parametrize(
    ("on_gpu", "byte_count", "count"), [(True, 1, 1), (False, 1, 6), (False, 2**30, 4)]
)
def test_as_many_workers_as_cores_and_memory_allow_and_one_on_a_gpu(
    on_gpu, byte_count, count, monkeypatch
):
    monkeypatch.setattr(workers, "has_gpu", lambda: on_gpu)
    monkeypatch.setattr(workers, "count_cores", lambda: 6)
    monkeypatch.setattr(workers, "memory_limit", lambda: 2**33 + 2**20)

    assert default_workers([SimpleNamespace(byte_count=byte_count)]) == count
