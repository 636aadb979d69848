"""Laws of FER2013's pixels and FER+'s votes."""

import zipfile
from collections import Counter

import numpy as np
import pytest

from configs.errors import DataError
from ensemble.data.loading import load_dataset
from ensemble.data.registry import Location
from ensemble.data.sources.fer import (
    EMOTIONS,
    VOTES,
    count_votes,
    elect,
    has_pixels,
    has_votes,
    load_fer2013,
    load_ferplus,
)

HEADER = (
    "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
)


def winner_of(votes, protocol):
    (column,) = elect(count_votes(np.array([votes]), protocol), protocol)
    return (*VOTES, None)[column]


@pytest.mark.parametrize(
    ("votes", "winner"),
    [
        ([10, 0, 0, 0, 0, 0, 0, 0, 0, 0], "neutral"),
        ([4, 0, 0, 1, 3, 2, 0, 0, 0, 0], None),  # 4 of 9: the single vote is gone
        ([5, 0, 0, 1, 4, 0, 0, 0, 0, 0], "neutral"),  # 5 of 9
        ([5, 5, 0, 0, 0, 0, 0, 0, 0, 0], None),  # a tie
        ([5, 0, 0, 3, 0, 0, 0, 0, 2, 0], None),  # exactly half
        ([2, 1, 1, 1, 1, 1, 1, 1, 1, 0], "neutral"),  # 2 of 2
        ([1, 1, 1, 1, 1, 1, 1, 1, 1, 1], None),  # nothing is left
        ([0, 0, 0, 0, 0, 0, 0, 0, 0, 0], None),
        ([0, 0, 0, 0, 0, 0, 0, 0, 8, 2], "unknown"),
        ([0, 0, 0, 0, 0, 0, 0, 0, 0, 10], "nf"),
    ],
)
def test_the_majority_is_more_than_half_of_what_is_left(votes, winner):
    assert winner_of(votes, "majority") == winner


@pytest.mark.parametrize(
    ("votes", "winner"),
    [
        ([4, 0, 0, 1, 3, 2, 0, 0, 0, 0], "neutral"),  # 4 of 10
        ([0, 0, 3, 0, 0, 0, 3, 0, 3, 1], "surprise"),  # the first of a tie
        ([0, 0, 0, 0, 0, 0, 0, 1, 0, 0], "contempt"),  # a single vote counts
        ([2, 2, 2, 0, 0, 0, 0, 0, 4, 0], "unknown"),
        ([0, 0, 0, 0, 0, 0, 0, 0, 0, 0], None),
    ],
)
def test_the_plurality_is_the_first_of_the_most_votes(votes, winner):
    assert winner_of(votes, "plurality") == winner


@pytest.mark.parametrize(
    ("votes", "winner"),
    [
        ([4, 0, 0, 1, 3, 2, 0, 0, 0, 0], "neutral"),  # 9 of 9 for emotions
        ([2, 2, 2, 0, 0, 0, 0, 0, 4, 0], "neutral"),  # 6 of 10, though unknown has the most
        ([2, 1, 0, 0, 3, 0, 0, 0, 4, 0], "anger"),  # 5 of 9: the single vote is gone
        ([2, 1, 1, 1, 0, 0, 0, 0, 2, 2], None),  # 2 of 6
        ([0, 0, 0, 5, 0, 0, 0, 0, 3, 2], None),  # exactly half
        ([1, 1, 1, 1, 1, 1, 1, 1, 1, 1], None),
    ],
)
def test_a_distribution_needs_a_majority_for_emotions_together(votes, winner):
    assert winner_of(votes, "distribution") == winner


@pytest.mark.parametrize(
    ("protocol", "shares"),
    [
        ("majority", None),
        ("plurality", [4 / 7, 2 / 7, 1 / 7]),
        ("distribution", [4 / 6, 2 / 6, 0]),
    ],
)
def test_a_protocol_decides_which_votes_labels_and_shares_are_made_of(tmp_path, protocol, shares):
    rows = [
        "Training,1.png,4,2,1,0,0,0,0,0,3,0",
        *(f"Training,{column}{copy}.png,{','.join('9' if c == column else '0' for c in range(10))}"
          for column in range(3) for copy in range(2)),
    ]  # fmt: skip
    (tmp_path / "votes.csv").write_text("\n".join([HEADER, *rows]))
    for row in rows:
        (tmp_path / row.split(",")[1]).write_bytes(b"")

    dataset = load_dataset(
        Location((tmp_path,), protocol=protocol),
        classes=["neutral", "happiness", "surprise"],
        validation_fraction=0.1,
    )

    names = [*dataset.train.names, *dataset.validation.names]
    votes = np.concatenate([dataset.train.votes, dataset.validation.votes])
    labels = np.concatenate([dataset.train.labels, dataset.validation.labels])
    assert ("1.png" in names) == (shares is not None)
    if shares is not None:
        place = names.index("1.png")
        assert labels[place] == 0
        np.testing.assert_allclose(votes[place] / votes[place].sum(), shares, rtol=1e-6)
    assert (
        f"{protocol}, which leaves {len(names)} of 7 images"
        in (dataset.facts["Protocol of the votes"])
    )


def test_a_protocol_is_refused_where_there_are_no_votes(tmp_path):
    (tmp_path / "fer2013.csv").write_text(pixel_table((3, "Training"), (4, "Training")))

    with pytest.raises(DataError, match="--protocol plurality counts the votes"):
        load_dataset(Location((tmp_path,), protocol="plurality"))


def pixel_table(*rows: tuple[int, str]) -> str:
    lines = [f"{emotion},{' '.join('7' * 4)},{usage}" for emotion, usage in rows]
    return "\n".join(["emotion,pixels,Usage", *lines])


def test_pixels_become_grey_squares(tmp_path):
    path = tmp_path / "fer2013.csv"
    pixels = np.arange(9).reshape(3, 3) * 30
    path.write_text(f"emotion,pixels,Usage\n3,{' '.join(map(str, pixels.flat))},PublicTest\n")
    collection = load_fer2013(Location((path,)))
    (record,) = collection.records
    image = collection.images.read(record.name)

    assert (record.name, record.label, record.split) == ("fer2013.csv:2", "happy", "validation")
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, pixels)
    with pytest.raises(OSError, match="no image"):
        collection.images.read("fer2013.csv:3")


def test_the_table_of_pixels_may_lie_in_an_archive_and_name_no_usage(tmp_path):
    with zipfile.ZipFile(tmp_path / "fer.zip", "w") as archive:
        archive.writestr("fer2013/fer2013.csv", "emotion, pixels\n6,1 2 3 4\n")
    location = Location((tmp_path / "fer.zip",))

    assert has_pixels(location)
    (record,) = load_fer2013(location).records
    assert (record.label, record.split) == ("neutral", None)


def test_all_codes_and_usages_are_read(tmp_path):
    (tmp_path / "f.csv").write_text(
        pixel_table(*((code, "Training") for code in range(7)), (0, "PrivateTest"))
    )
    records = load_fer2013(Location((tmp_path,))).records

    assert tuple(record.label for record in records[:7]) == EMOTIONS
    assert [record.split for record in records] == ["train"] * 7 + ["test"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("7,1 2 3 4,Training", "the emotion '7'"),
        ("happy,1 2 3 4,Training", "the emotion 'happy'"),
        ("3,1 2 3,Training", "3 pixels make no square"),
        ("3,,Training", "0 pixels make no square"),
        ("3,1 2 3 x,Training", "not all numbers"),
        ("3,1 2 3 256,Training", "not all within 0..255"),
        ("3,1 2 3 4,Later", "the usage 'Later'"),
    ],
)
def test_a_malformed_row_is_a_problem_with_its_number(tmp_path, row, reason):
    path = tmp_path / "fer2013.csv"
    path.write_text(f"{pixel_table((3, 'Training'))}\n{row}\n")
    collection = load_fer2013(Location((path,)))

    assert [record.name for record in collection.records] == ["fer2013.csv:2"]
    assert [problem.name for problem in collection.problems] == ["fer2013.csv:3"]
    assert reason in collection.problems[0].reason


@pytest.fixture
def votes(tmp_path):
    """A table of votes: happiness, no majority, not a face without image, then fer1 once more."""
    rows = [
        "Training,fer1.png,0,9,1,0,0,0,0,0,0,0",
        "Training,fer2.png,5,5,0,0,0,0,0,0,0,0",
        "PublicTest,,0,0,0,0,0,0,0,0,0,10",
        "PublicTest,fer1.png,0,0,0,10,0,0,0,0,0,0",
    ]
    path = tmp_path / "fer2013new.csv"
    path.write_text("\n".join([HEADER, *rows]))
    return path


def test_votes_are_joined_to_images_by_file_name(votes):
    folder = votes.parent
    for name in ("fer1.png", "fer2.png", "fer3.png"):
        (folder / name).write_bytes(b"")
    location = Location((folder,))
    assert has_votes(location)
    collection = load_ferplus(location)

    assert [(record.name, record.label, record.split) for record in collection.records] == [
        ("fer1.png", "sadness", "validation")
    ]
    assert set(collection.notes) == {
        "1 images without a majority are left out",
        "1 images without votes are left out",
        "1 rows of votes name no image",
        "1 rows of votes are replaced by a later one",
    }


def test_votes_are_read_whatever_the_order_and_names_of_columns(votes):
    folder = votes.parent
    (folder / "fer1.png").write_bytes(b"")
    _, *rows = votes.read_text().splitlines()
    shuffled = ["name;duplicate_of;NF;Split;" + ";".join(VOTES[:9])]
    for row in rows:
        usage, name, *counts = row.split(",")
        shuffled.append(";".join([name, "", counts[9], usage, *counts[:9]]))
    votes.write_text("\n".join(shuffled))

    collection = load_ferplus(Location((folder,)))

    assert [(record.name, record.label, record.split) for record in collection.records] == [
        ("fer1.png", "sadness", "validation")
    ]


def test_votes_with_a_folder_are_on_the_image_in_that_folder_only(votes):
    folder = votes.parent
    for name in ("a/fer1.png", "b/fer1.png"):
        (folder / name).parent.mkdir()
        (folder / name).write_bytes(b"")
    votes.write_text(f"{HEADER}\nTraining,a\\fer1.png,0,9,1,0,0,0,0,0,0,0\n")

    records = load_ferplus(Location((folder,))).records

    assert [(record.name, record.label) for record in records] == [("a/fer1.png", "happiness")]


def test_a_table_of_votes_names_the_columns_that_it_lacks(votes):
    votes.write_text(votes.read_text().replace("contempt", "kontempt"))
    location = Location((votes.parent,), labels=votes)

    assert has_votes(location)
    assert not has_votes(Location((votes.parent,)))
    with pytest.raises(DataError, match=r"fer2013new\.csv .* lacks the columns contempt\."):
        load_ferplus(location)


def test_votes_are_joined_to_pixels_by_row(votes, tmp_path):
    path = tmp_path / "fer2013.csv"
    usages = ["Training", "Training", "PublicTest", "PublicTest", "PrivateTest"]
    path.write_text(pixel_table(*((0, usage) for usage in usages)))
    collection = load_ferplus(Location((path,), labels=votes))

    assert [(record.name, record.label, record.split) for record in collection.records] == [
        ("fer2013.csv:2", "happiness", "train"),
        ("fer2013.csv:5", "sadness", "validation"),
    ]
    assert collection.images.read("fer2013.csv:5").shape == (2, 2)


def test_votes_in_another_order_than_the_pixels_are_refused(votes, tmp_path):
    path = tmp_path / "fer2013.csv"
    path.write_text(pixel_table((0, "PublicTest"), (0, "Training")))

    with pytest.raises(DataError, match="do not follow"):
        load_ferplus(Location((path,), labels=votes))


def test_a_malformed_vote_is_a_problem_with_its_number(votes, tmp_path):
    votes.write_text(votes.read_text() + "\nTraining,fer2.png,-1,x,,,,,,,,\n")
    (tmp_path / "fer1.png").write_bytes(b"")

    assert [problem.name for problem in load_ferplus(Location((tmp_path,))).problems] == [
        "fer2013new.csv:6"
    ]


def test_ferplus_keeps_the_published_counts(shared_data):
    roots = (shared_data / "ferplus_train.zip", shared_data / "ferplus_valid.zip")
    collection = load_ferplus(Location(roots, labels=shared_data / "fer2013new.csv"))
    counts = Counter((record.split, record.label) for record in collection.records)

    emotions = VOTES[:8]
    assert [counts["train", label] for label in emotions] == [
        *(8739, 7287, 3149, 3013, 2099, 119, 532, 119)
    ]
    assert [counts["validation", label] for label in emotions] == [
        *(1182, 865, 415, 351, 287, 24, 62, 13)
    ]
    assert counts.total() == 25_057 + 3_199
    assert not collection.problems
    assert collection.facts["Protocol of the votes"] == (
        "majority, which leaves 28,256 of 32,137 images (25,057 train, 3,199 validation) and "
        "leaves out 3,790 without a majority, 89 voted unknown, 2 voted not a face"
    )


@pytest.mark.parametrize(
    ("protocol", "train", "validation"),
    [("plurality", 28_386, 3_553), ("distribution", 28_413, 3_555)],
)
def test_other_protocols_keep_more_images(shared_data, protocol, train, validation):
    roots = (shared_data / "ferplus_train.zip", shared_data / "ferplus_valid.zip")
    labels = shared_data / "fer2013new.csv"
    collection = load_ferplus(Location(roots, labels=labels, protocol=protocol))

    assert Counter(record.split for record in collection.records) == {
        "train": train,
        "validation": validation,
    }


def test_the_tidy_table_of_votes_gives_the_published_labels(shared_data):
    location = Location(
        (shared_data / "ferplus_valid.zip",), labels=shared_data / "ferplus_labels.csv"
    )

    records = load_ferplus(location).records

    assert len(records) == 3_199
    assert {record.split for record in records} == {"validation"}
