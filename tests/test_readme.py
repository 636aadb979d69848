"""The README's examples run, and its commands are understood."""

import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from branches.registry import BRANCHES
from ensemble.__main__ import COMMANDS
from ensemble.commands.train.__main__ import main as train

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def examples() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", README, flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line[2:].split("#")[0].strip() for line in lines if line.startswith("$ ")]


@pytest.mark.slow
@pytest.mark.parametrize("code", examples(), ids=lambda code: code.splitlines()[0][:40])
def test_an_example_runs_as_it_stands(code, tmp_path):
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_every_train_command_is_understood(capsys):
    trains = [command for command in commands() if "-m ensemble.train" in command]
    found = [command for command in trains if "runs/NAME" not in command]
    assert len(found) >= 3
    for command in found:
        words = shlex.split(command.split("ensemble.train", 1)[1])
        if "vgg61" in words:
            assert train(words) == 2
            shown = capsys.readouterr().err.strip()
            assert shown in README
        else:
            with pytest.raises(SystemExit) as stopped:
                train([*words, "--print-config"])
            assert stopped.value.code == 0


def test_every_make_target_named_exists():
    makefile = (ROOT / "Makefile").read_text()
    targets = [command.split()[1] for command in commands() if command.startswith("make ")]
    assert targets == ["train", "test"]
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


def test_every_option_named_is_a_flag_of_a_command():
    named = set(re.findall(r"(--[a-z][a-z-]+)(?![\w.-])", README))
    known = {"--editable"}  # of pip
    for command in COMMANDS:
        words = [sys.executable, "-m", f"ensemble.{command}", "--help"]
        shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        known |= set(re.findall(r"--[a-z][a-z-]+", shown))

    assert named <= known


def test_the_readmes_own_branch_is_a_plugin(tmp_path):
    code = next(example for example in examples() if "register_branch" in example)
    path = tmp_path / "my_branch.py"
    path.write_text(textwrap.dedent(code))
    known = set(BRANCHES.names())

    listed = subprocess.run(
        [sys.executable, "-m", "ensemble.train", "--plugins", str(path),
         "--branches", "efficientnet_b0", "--print-config"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip

    assert listed.returncode == 0, listed.stderr
    assert "efficientnet_b0" not in known
