import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from ensemble.commands.predict.__main__ import main
from ensemble.commands.predict.photos import find_photos
from ensemble.commands.predict.pictures import PictureFolder
from ensemble.experiment import fit
from ensemble.runs.run import Run


@pytest.fixture
def run(make_config: Callable) -> Run:
    return fit(make_config(training={"epochs": 12})).run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    Image.new("RGB", (40, 30), (220, 70, 70)).save(folder / "deep" / "red.jpg")
    Image.new("RGB", (40, 30), (70, 70, 220)).save(folder / "blue.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nand no more")
    return folder


def test_a_folder_is_answered_in_a_table_and_in_files(run, photos, tmp_path, capsys):
    output = tmp_path / "answers"

    code = main([str(run.folder), str(photos), "--faces", "none", "--output", str(output)])

    assert code == 0
    screen = capsys.readouterr().out
    assert "broken.png    unreadable" in screen
    assert "3 photos: 2 predicted, 1 unreadable; face detector: none" in screen
    content = json.loads((output / "predictions.json").read_text())
    assert content["classes"] == ["blue", "red"]
    assert content["face_detector"] == "none"
    answers = {Path(answer["photo"]).name: answer for answer in content["predictions"]}
    assert {name: answer["label"] for name, answer in answers.items()} == {
        "blue.png": "blue",
        "broken.png": None,
        "red.jpg": "red",
    }
    assert answers["broken.png"]["status"] == "unreadable"
    assert sum(answers["red.jpg"]["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    with (output / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["blue", "", "red"]
    assert {row["face_detector"] for row in rows} == {"none"}
    assert float(rows[2]["p:red"]) == pytest.approx(float(rows[2]["confidence"]))
    pictures = sorted(path.name for path in (output / "pictures").iterdir())
    assert pictures == ["00001-blue.jpg", "00003-red.jpg"]
    for name in pictures:
        assert Image.open(output / "pictures" / name).size == (40, 30)


def test_heat_maps_are_written_for_each_branch_and_the_whole(run, photos, tmp_path):
    output = tmp_path / "answers"

    words = [str(run.folder), f"{photos}/*.png", "--faces", "none", "--explain"]

    code = main([*words, "--output", str(output)])

    assert code == 0
    sheets = list((output / "heat_maps").iterdir())
    assert [sheet.name for sheet in sheets] == ["00001-blue-face1.png"]
    # Photo, fused and one branch: three panels of 224 pixels with gaps of 12.
    assert Image.open(sheets[0]).width == 3 * 224 + 4 * 12


def test_an_image_from_standard_input_is_answered_as_json(run, photos, monkeypatch, capsys):
    data = (photos / "blue.png").read_bytes()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))

    code = main([str(run.folder / "model.keras"), "-", "--faces", "none", "--format", "json"])

    assert code == 0
    content = json.loads(capsys.readouterr().out)
    assert [(a["photo"], a["label"]) for a in content["predictions"]] == [("-", "blue")]


def test_pictures_of_an_interrupted_call_are_not_predicted(run, photos, monkeypatch):
    def interrupt(self, *arguments):
        add(self, *arguments)
        raise KeyboardInterrupt

    add = PictureFolder.add
    monkeypatch.setattr(PictureFolder, "add", interrupt)
    main([str(run.folder), str(photos), "--faces", "none", "--output", str(photos / "answers")])

    assert list((photos / "answers" / "pictures").iterdir())
    assert len(find_photos([str(photos)])) == 3


class Folder(io.BytesIO):
    """A stream that cannot be read, as when a folder is redirected into standard input."""

    def read(self, *_):
        raise IsADirectoryError(21, "Is a directory")


@pytest.mark.parametrize("stream", [None, io.BytesIO(), Folder()])
def test_standard_input_without_an_image_is_refused(stream, tmp_path, monkeypatch, capsys):
    model = tmp_path / "model.keras"
    model.touch()
    given = None if stream is None else SimpleNamespace(buffer=stream)
    monkeypatch.setattr(sys, "stdin", given)

    assert main([str(model), "-"]) == 2
    assert "tandard input" in capsys.readouterr().err


def test_an_uncertain_answer_is_told_so(run, photos, capsys):
    arguments = [str(run.folder), f"{photos}/blue.png", "--faces", "none"]

    code = main([*arguments, "--min-confidence", "1", "--format", "csv"])

    assert code == 0
    row = next(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert (row["status"], row["label"]) == ("uncertain", "")
    assert float(row["p:blue"]) == pytest.approx(float(row["confidence"]))
