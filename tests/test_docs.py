"""What the documentation says is so: its commands and examples run, its lists are complete."""

import contextlib
import importlib.util
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import yaml
from PIL import Image

import branches
import ensemble
import heads
from branches.registry import BRANCHES
from configs.fields import leaf_paths
from configs.schema import FaceSetConfig
from configs.search import SearchExperiment
from ensemble.__main__ import COMMANDS, main
from ensemble.data.registry import SOURCES
from ensemble.data.synthetic_faces import draw_face
from ensemble.faces.registry import DETECTORS
from heads.registry import HEADS
from tools.settings_page import settings_page

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

# Pages whose commands are understood but do not run here, and why; their Python does.
READ_ONLY = {
    "index.md": "`make train` and `make test` install packages",
    "cluster.md": "wants several devices or machines",
    "export.md": "the tutorial exports; here RUN is the reader's",
    "serving.md": "a server does not end",
    "howto/calibration.md": "trains on ImageNet weights, which are a download",
    "howto/fine_tuning.md": "trains on ImageNet weights and FER+, which are downloads",
}
# What no page runs: the beginning of a command, and why.
NOT_RUN = {
    "make ": "it is the Makefile's; its target exists",
    "pip install ": "it needs a network",
    "curl ": "it asks a server that runs elsewhere",
    "export ": "a shell's own",
    "CLUSTER=": "a shell's own",
    "TRAIN=": "a shell's own",
    "KERASTUNER_TUNER_ID=": "one of several processes",
    "TF_CONFIG=": "one of several processes",
    "KERAS_DISTRIBUTION_PROCESS_ID=": "one of several processes",
    "python -m ensemble.search --config all_combinations": "four branches with ImageNet weights",
    "python -m ensemble.search --config five_seeds": "DenseNet121 with ImageNet weights",
}


class Block(NamedTuple):
    """A fenced block of a page."""

    kind: str
    text: str

    @property
    def file(self) -> str | None:
        """The name of the file that it is, by its first line."""
        named = re.match(r"# (\w+\.(?:py|yaml))\n", self.text)
        return named[1] if named else None

    @property
    def commands(self) -> list[str]:
        found = re.findall(r"^\$ (.*?)(?=^\$ |\Z)", self.text, flags=re.DOTALL | re.MULTILINE)
        lines = (re.sub(r"\s*\\?\n\s*", " ", command) for command in found)
        return [line.partition(" #")[0].strip() for line in lines]


def pages() -> list[str]:
    return sorted(
        str(path.relative_to(DOCS))
        for path in DOCS.rglob("*.md")
        if path.parent.name != "reference"
    )


def blocks(page: str) -> list[Block]:
    text = (DOCS / page).read_text("utf-8")
    return [Block(*found) for found in re.findall(r"```(\w+)\n(.*?)```", text, flags=re.DOTALL)]


def commands() -> list[tuple[str, str]]:
    return [
        (page, command)
        for page in pages()
        for block in blocks(page)
        if block.kind == "console"
        for command in block.commands
    ]


def words_of(command: str) -> list[str]:
    """Returns the words behind `python -m ensemble.`, the command's name first."""
    if command.startswith("TRAIN="):
        command = shlex.split(command)[0].removeprefix("TRAIN=")
    words = re.fullmatch(r"(?:[A-Z_]+=\S+ +)*python -m ensemble\.(.*)", command)
    assert words, f"no test knows what to do with: {command}"
    return shlex.split(words[1])


def runs(page: str, command: str) -> bool:
    return page not in READ_ONLY and not command.startswith(tuple(NOT_RUN))


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to work in; parts that are registered in it are forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    known = set(sys.modules)
    with contextlib.ExitStack() as stack:
        for registry in (BRANCHES, HEADS, SOURCES, DETECTORS):
            stack.enter_context(registry.temporary(next(iter(registry))))
        yield tmp_path
    for name in set(sys.modules) - known:
        if name.startswith("my_"):
            del sys.modules[name]


@pytest.fixture
def server_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has `ensemble.serve` end as soon as it is ready, on whatever port is free."""
    uvicorn = pytest.importorskip("uvicorn")
    from ensemble.commands.serve import __main__ as serve

    listen = serve.listen
    monkeypatch.setattr(serve, "listen", lambda host, _: listen(host, 0))

    def run(_: object, sockets: list[socket.socket]) -> None:
        for each in sockets:
            each.close()

    monkeypatch.setattr(uvicorn.Server, "run", run)


def run_page(page: str) -> None:
    """Does what a page says, in the order of the page."""
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(page):
        if block.file:
            Path(block.file).write_text(block.text, "utf-8")
        elif block.kind == "python":
            exec(compile(block.text, page, "exec"), names)
        elif block.kind == "console":
            for command in filter(lambda command: runs(page, command), block.commands):
                run_command(command)


def run_command(command: str) -> None:
    words = words_of(command)
    if words[0] == "search":  # whose winner must not meet the models of this process
        again = [sys.executable, "-m", "ensemble", *words]
        done = subprocess.run(again, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False)
        assert done.returncode == 0, command
        return
    try:
        code = main(words)
    except SystemExit as stopped:  # --print-config
        code = stopped.code
    assert code == 0, command


@pytest.mark.slow
def test_the_tutorial_runs_as_it_stands(workplace, server_ends):
    pytest.importorskip("cv2")
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("needs the package openvino")

    run_page("tutorial.md")

    assert {path.name for path in workplace.iterdir()} == {
        *("photos", "others", "faces", "other_faces", "runs", "answers"),
    }

    exported = workplace / "runs" / "NAME" / "exported"
    exported.mkdir(parents=True)
    (exported / "onnx").symlink_to(workplace / "runs" / "first" / "exported" / "openvino")
    run_page("export.md")  # its Python alone, on the tutorial's model


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in pages() if page.startswith("howto/")], ids=lambda page: page[6:-3]
)
def test_a_how_to_runs_as_it_stands(page, workplace):
    random = np.random.default_rng(0)
    for folder in ("faces", "photos"):
        for label in ("happy", "sad"):
            place = workplace / folder / label
            place.mkdir(parents=True)
            for number in range(12):
                Image.fromarray(draw_face(label, random)).save(place / f"{number}.png")

    run_page(page)


def test_a_page_that_does_not_run_is_named_with_its_reason():
    assert set(READ_ONLY) < set(pages())
    for start in NOT_RUN:
        assert any(command.startswith(start) for _, command in commands()), start


@pytest.mark.parametrize(
    ("page", "command"),
    [each for each in commands() if "python -m" in each[1] and not runs(*each)],
)
def test_a_command_that_does_not_run_is_understood(page, command, capsys):
    name, *words = words_of(command)
    assert name in COMMANDS
    reads_settings = name in {"train", "search", "extract"} and "--resume" not in words
    with pytest.raises(SystemExit) as stopped:
        main([name, *words, "--print-config" if reads_settings else "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    if not reads_settings:
        known = set(re.findall(r"--[\w.-]+", shown))
        assert {word for word in words if word.startswith("--")} <= known


def test_every_make_target_named_exists():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for _, command in commands():
        if command.startswith("make "):
            assert f"\n{command.removeprefix('make ')}:" in makefile


@pytest.mark.parametrize("package", [ensemble, branches, heads], ids=lambda each: each.__name__)
def test_the_reference_holds_every_public_name(package):
    text = (DOCS / "reference" / f"{package.__name__}.md").read_text("utf-8")
    named = re.findall(rf"^::: {package.__name__}\.(\w+)$", text, flags=re.MULTILINE)
    assert sorted(named) == sorted(package.__all__)


def test_the_page_of_settings_holds_every_leaf():
    rows = [line.split(" | ") for line in settings_page().splitlines() if line.startswith("| `")]
    named = {row[0].removeprefix("| ").strip("`"): row for row in rows}

    assert {*leaf_paths(SearchExperiment), *leaf_paths(FaceSetConfig)} <= set(named)
    learning_rate = named["training.learning_rate"]
    assert learning_rate[1:] == ["`0.001`", "learning rate of Adam", "`--learning-rate` |"]
    assert named["model.head"][1] == "`dense`"
    assert named["data.faces.align"][1:] == [
        "`false`",
        "rotate faces until the eyes are level, where the detector locates them",
        " |",
    ]


def test_the_site_lists_every_page():
    listed = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"]
    found = set(re.findall(r"[\w/]+\.md", str(listed)))
    references = {f"reference/{name}.md" for name in ("settings", "ensemble", "branches", "heads")}
    assert found == {*pages(), *references}
