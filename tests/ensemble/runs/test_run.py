import errno
import logging
from datetime import datetime
from pathlib import Path

import pytest

from configs.errors import RunError
from configs.schema import ExperimentConfig
from ensemble.runs.run import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(ExperimentConfig(output=tmp_path), "title")


def test_settings_come_back_as_they_were(tmp_path: Path):
    config = ExperimentConfig.model_validate(
        {
            "output": tmp_path,
            "data": {"merge": "bad=anger+fear", "classes": "bad,happy"},
            "model": {"branches": "vgg16,vgg16:b", "head": {"name": "linear", "dropout": 0.5}},
        }
    )
    assert Run.create(config, "title").config == config


def test_a_file_appears_whole_or_not_at_all(run: Run):
    run.write("report.md", "first")

    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(RunError, match="No space left on device"):
        run.save("report.md", fail)

    assert (run.folder / "report.md").read_text() == "first"
    assert {path.name for path in run.folder.iterdir()} == {"config.yaml", "report.md"}


def test_messages_are_kept_in_the_log(run: Run):
    logger = logging.getLogger("ensemble.somewhere")
    logger.parent.setLevel(logging.INFO)
    with run.logging():
        logger.info("inside")
    logger.info("outside")

    text = (run.folder / "log.txt").read_text()
    assert "inside" in text
    assert "outside" not in text


def test_opening_what_is_no_run_says_what_is_missing(run: Run, tmp_path: Path):
    with pytest.raises(RunError, match=r"no model\.keras"):
        Run.open(run.folder)
    with pytest.raises(RunError, match=r"no config\.yaml and no model\.keras"):
        Run.open(tmp_path / "nowhere")


def test_runs_that_begin_in_the_same_second_do_not_meet(tmp_path: Path, monkeypatch):
    class Clock(datetime):
        @classmethod
        def now(cls):
            return cls(2026, 1, 2, 3, 4, 5)

    monkeypatch.setattr("ensemble.runs.run.datetime", Clock)
    config = ExperimentConfig(output=tmp_path)

    names = [Run.create(config, "faces").folder.name for _ in range(3)]

    assert names == [
        "faces-20260102-030405",
        "faces-20260102-030405-2",
        "faces-20260102-030405-3",
    ]


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(RunError, match="Choose another --output"):
        Run.create(ExperimentConfig(output=tmp_path / "file"), "title")


@pytest.mark.parametrize("title", ["d" * 300, "喜" * 100])
def test_a_long_title_is_cut_to_what_a_file_system_takes(title, tmp_path):
    run = Run.create(ExperimentConfig(output=tmp_path), title)

    assert title[:20] in run.name
    assert run.folder.is_dir()
