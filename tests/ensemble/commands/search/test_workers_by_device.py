"""How many trials run side by side depends on the device that the backend computes on."""

from types import SimpleNamespace

import pytest

pytest.importorskip("keras_tuner")

from ensemble.commands.search import searching, trials
from ensemble.commands.search.searching import default_workers
from ensemble.commands.search.trials import Bench


@pytest.mark.parametrize(("on_gpu", "workers"), [(True, 1), (False, 6)])
def test_a_gpu_of_any_name_gets_one_worker(on_gpu, workers, monkeypatch):
    for name in ("log_start", "fill_branches", "record_weights"):
        monkeypatch.setattr(trials, name, lambda *_: None)
    monkeypatch.setattr(
        trials, "build_frozen", lambda *_: (None, SimpleNamespace(weights="random"))
    )
    monkeypatch.setattr(trials, "freeze_branches", lambda *_: [])
    monkeypatch.setattr(trials, "has_gpu", lambda: on_gpu)
    monkeypatch.setattr(searching, "count_cores", lambda: 6)

    filled = trials._fill(SimpleNamespace(features=None), None, None)

    assert default_workers(Bench([SimpleNamespace(filled=filled)])) == workers
