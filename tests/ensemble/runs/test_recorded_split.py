"""Laws of a recorded split: its images are found by content, and no others are."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs.errors import DataError
from configs.schema import ExperimentConfig
from ensemble.data.inspection import inspect_dataset
from ensemble.data.reading import inspect
from ensemble.data.registry import SOURCES
from ensemble.faces.store import read_dataset
from ensemble.runs.recorded_split import recorded_split
from ensemble.runs.records import SPLIT_COLUMNS, split_rows
from ensemble.runs.run import Run

MakeConfig = Callable[..., ExperimentConfig]
CLASSES = ("blue", "red")


def record(config: ExperimentConfig) -> Run:
    """Writes the split that a training with these settings would record."""
    run = Run.create(config, "recorded")
    dataset = read_dataset(config.data, config.seed)
    images = inspect_dataset(dataset, config.data)
    run.write_table("split.csv", SPLIT_COLUMNS, split_rows(dataset.classes, images))
    return run


def contents(run: Run, part: str = "validation") -> dict[str, tuple[int, bytes]]:
    """Returns the label and the digest of each image that is found, by recorded name."""
    inspection = inspect(recorded_split(run, part, CLASSES).split, 16)
    split = inspection.readable
    values = zip(split.labels.tolist(), inspection.digests, strict=True)
    return dict(zip(split.names, values, strict=True))


def write_noise(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def run(make_config: MakeConfig) -> Run:
    return record(make_config())


@pytest.mark.parametrize("part", ["train", "validation"])
def test_added_images_and_classes_change_no_recorded_split(run, part, colours_folder):
    before = contents(run, part)
    for number in range(12):
        write_noise(colours_folder / "red" / f"0{number}-added.png", number)
        write_noise(colours_folder / "green" / f"{number:02}.png", 100 + number)

    assert contents(run, part) == before


def test_images_that_were_renamed_moved_or_swapped_are_found_by_content(run, colours_folder):
    before = contents(run)
    first, second, third, *_ = [colours_folder / name for name in before]
    first.rename(first.with_name("renamed.png"))
    content = second.read_bytes()
    second.write_bytes(third.read_bytes())
    third.write_bytes(content)
    (colours_folder / "red").rename(colours_folder / "scarlet")

    assert contents(run) == before
    facts = recorded_split(run, "validation", CLASSES).facts
    assert "10 of the 10 recorded images were found" in facts["Split"]
    assert "of them under another name" in facts["Split"]


def test_images_are_found_where_the_layout_is_no_longer_known(run, colours_folder, monkeypatch):
    before = contents(run)
    for spec in SOURCES:
        monkeypatch.setitem(SOURCES._parts, spec.name, replace(spec, matches=lambda _: False))

    assert contents(run) == before
    assert "not known any more" in recorded_split(run, "validation", CLASSES).facts["Layout"]


def test_missing_and_changed_images_are_counted_and_listed(run, colours_folder):
    missing, changed, *others = contents(run)
    (colours_folder / missing).unlink()
    write_noise(colours_folder / changed, 1)

    recorded = recorded_split(run, "validation", CLASSES)

    assert list(recorded.split.names) == others
    assert [row["path"] for row in recorded.lost] == [missing, changed]
    assert {problem.name: problem.reason for problem in recorded.problems} == {
        missing: "missing or unreadable",
        changed: "changed since the training",
    }
    assert recorded.facts["Split"] == (
        "8 of the 10 recorded images were found; "
        "1 missing or unreadable, 1 changed since the training"
    )


def test_changed_labels_are_counted_and_the_recorded_ones_count(run, colours_folder):
    before = contents(run)
    name = next(name for name in before if name.startswith("blue"))
    (colours_folder / name).rename(colours_folder / "red" / "was-blue.png")

    assert contents(run) == before
    fact = recorded_split(run, "validation", CLASSES).facts["Split"]
    assert "1 have another label now, the recorded one counts" in fact


def test_a_copy_of_an_image_stands_in_for_no_second_one(run, colours_folder):
    first, second, *_ = contents(run)
    (colours_folder / second).unlink()
    rows = run.read_table("split.csv")
    digests = {row["path"]: row["sha256"] for row in rows}
    for row in rows:
        row["sha256"] = digests[first] if row["path"] == second else row["sha256"]
    run.write_table("split.csv", SPLIT_COLUMNS, [list(row.values()) for row in rows])

    assert second not in recorded_split(run, "validation", CLASSES).split.names


def test_other_images_under_the_same_names_are_rejected(run, colours_folder):
    for number, path in enumerate(sorted(colours_folder.rglob("*.png"))):
        write_noise(path, number)

    with pytest.raises(DataError, match=r"None of the 10 validation images.*10 changed.*--data"):
        recorded_split(run, "validation", CLASSES)


def test_another_working_directory_leads_to_the_same_images(
    make_config, colours_folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    run = record(make_config(data={"root": [Path("colours")]}))
    before = contents(run)
    for path in sorted(colours_folder.rglob("*.png")):
        write_noise(tmp_path / "elsewhere" / "colours" / path.relative_to(colours_folder), 0)

    monkeypatch.chdir(tmp_path / "elsewhere")

    assert contents(run) == before


def test_a_split_without_digests_is_found_by_name_and_not_verified(run, caplog):
    before = contents(run)
    rows = run.read_table("split.csv")
    columns = SPLIT_COLUMNS[:-1]
    run.write_table("split.csv", columns, [[row[name] for name in columns] for row in rows])

    assert contents(run) == before
    fact = recorded_split(run, "validation", CLASSES).facts["Split"]
    assert "content could not be verified" in fact


def test_the_test_split_is_recorded_with_digests_too(make_config, colours_folder):
    for label in CLASSES:
        for part, numbers in (("train", range(18)), ("test", range(18, 24))):
            for number in numbers:
                path = colours_folder / label / f"{number:02}.png"
                target = colours_folder.parent / "parts" / part / label / path.name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
    run = record(make_config(data={"root": [colours_folder.parent / "parts"]}))
    with (run.folder / "split.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]

    assert {name: digest.hex() for name, (_, digest) in contents(run, "test").items()} == {
        row["path"]: row["sha256"] for row in rows
    }
    assert len(rows) == 12
