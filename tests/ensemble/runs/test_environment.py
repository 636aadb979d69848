"""Laws of the record of what a result depends on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from branches.arithmetic import describe_arithmetic, set_arithmetic
from branches.builder import build_branch
from ensemble.runs import environment
from ensemble.runs.environment import describe_environment
from ensemble.training import cluster
from ensemble.training.distribution import SINGLE_DEVICE

ROOT = Path(__file__).resolve().parents[3]
USUAL = {
    "floatx": "float32",
    "dtype_policy": "float32",
    "image_data_format": "channels_last",
    "epsilon": 1e-7,
}


def test_other_settings_of_keras_decide_nothing_in_python(tiny):
    keras.config.set_floatx("float16")
    keras.config.set_dtype_policy("mixed_bfloat16")
    keras.config.set_image_data_format("channels_first")
    keras.config.set_epsilon(0.1)
    try:
        branch = build_branch(tiny, input_shape=(16, 16, 3), weights="random")
        found = describe_environment()["arithmetic"]
    finally:
        set_arithmetic()

    assert found == USUAL
    assert {weight.dtype for weight in branch.weights} == {"float32"}
    assert branch.output_shape == (None, 3, 3, 12)


def test_other_settings_of_keras_decide_nothing_in_a_command(tmp_path):
    settings = {"floatx": "float16", "image_data_format": "channels_first", "epsilon": 0.1}
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    code = (
        "import json; from ensemble.cli.command_line import load_backend; "
        "load_backend(devices=False); "
        "from branches.arithmetic import describe_arithmetic; import keras; "
        "assert keras.config.max_epochs() is None; "
        "print(json.dumps(describe_arithmetic()))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "KERAS_HOME": str(tmp_path), "KERAS_MAX_EPOCHS": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert json.loads(output) == describe_arithmetic() == USUAL


def test_the_machine_is_recorded_as_it_may_be_used(monkeypatch):
    monkeypatch.setattr(environment, "memory_limit", lambda: 10**9)
    monkeypatch.setattr(environment, "count_cores", lambda: 3)

    record = describe_environment()

    assert (record["cores"], record["memory"]) == (3, 10**9)


def test_the_commit_is_that_of_a_repository_that_tracks_the_code(tmp_path, monkeypatch):
    def git(*words: str) -> str:
        command = ["git", "-c", "user.name=n", "-c", "user.email=a@b", *words]
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout.strip()

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "theirs")
    code = tmp_path / "lib" / "environment.py"
    code.parent.mkdir()
    code.write_text("first")
    monkeypatch.setattr(environment, "__file__", str(code))

    assert describe_environment()["git_commit"] is None  # the code lies there untracked

    git("add", ".")
    git("commit", "-q", "-m", "code")
    assert describe_environment()["git_commit"] == git("rev-parse", "HEAD")

    code.write_text("second")
    assert describe_environment()["git_commit"] == git("rev-parse", "HEAD") + "+"


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TF_CONFIG is TensorFlow's")
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"environment": "cloud"},
        {"cluster": {"worker": ["localhost:12345"]}, "task": {"type": "worker", "index": 0}},
        {"cluster": {"chief": ["localhost:12345"]}, "task": {"type": "chief", "index": 0}},
    ],
)
def test_variables_that_name_one_process_change_nothing(config, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))

    assert cluster.connect() is SINGLE_DEVICE
    assert cluster._strategies == []
