"""What is finished stays, what is half-written is done again, and damage is never read."""

import hashlib
import io
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from configs.errors import StoreError
from ensemble.features.shards import ShardError, read_shard, write_shard
from ensemble.features.store import BranchKey, FeatureGroup, FeatureStore

ROOT = Path(__file__).resolve().parents[3]
SHAPE = (32, 32, 16)


def make_key(**changes) -> BranchKey:
    values = {
        "branch": "tiny", "weights": "w", "architecture": "a", "scaling": "tf",
        "image_size": 16, "reduction": "map", "shape": SHAPE,
    }  # fmt: skip
    return BranchKey(**{**values, **changes})


def digest(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def features_of(numbers: list[int]) -> np.ndarray:
    """What a branch would make of these images: each its own numbers."""
    return np.stack([np.full(SHAPE, number, "float32") for number in numbers])


@pytest.fixture
def group(tmp_path: Path) -> FeatureGroup:
    return FeatureStore(tmp_path / "store").open(make_key())


def read(group: FeatureGroup, numbers: list[int]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    out = np.full((len(numbers), *SHAPE), -1, "float32")
    damaged: list[str] = []
    found = group.read(
        "view-0", [digest(n) for n in numbers], lambda path, _: damaged.append(path.name), out
    )
    return found, out, damaged


def add(group: FeatureGroup, numbers: list[int], view: str = "view-0") -> None:
    group.add(view, [digest(n) for n in numbers], features_of(numbers))


def shards(group: FeatureGroup) -> list[Path]:
    return sorted(group.folder.rglob("*.h5"))


def test_features_come_back_in_the_order_asked_for(group):
    add(group, [0, 1, 2])
    add(group, [3, 4])

    found, out, damaged = read(group, [4, 0, 9, 2])

    assert found.tolist() == [True, True, False, True]
    np.testing.assert_array_equal(out[found], features_of([4, 0, 2]))
    assert (out[2] == -1).all()
    assert damaged == []


@pytest.mark.parametrize(
    "change",
    [
        {"branch": "other"}, {"weights": "v"}, {"architecture": "b"}, {"scaling": "caffe"},
        {"image_size": 17}, {"reduction": "pooled"}, {"precision": "bfloat16"},
        {"dtype": "float16"}, {"pipeline": 99}, {"engine": "openvino"},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_whatever_decides_the_numbers_parts_the_groups(tmp_path, group, change):
    add(group, [0])

    other = FeatureStore(tmp_path / "store").open(make_key(**change))

    assert not read(other, [0])[0].any()


def test_views_are_kept_apart(group):
    add(group, [0], view="view-1-abc")

    assert not read(group, [0])[0].any()


@pytest.mark.parametrize("seed", range(10))
def test_a_damaged_byte_anywhere_is_found_named_and_never_read(group, seed):
    add(group, [0, 1])
    add(group, [2, 3])
    path = shards(group)[0]
    content = bytearray(path.read_bytes())
    content[random.Random(seed).randrange(len(content))] ^= 0x55
    path.write_bytes(content)

    found, out, damaged = read(group, [0, 1, 2, 3])

    assert damaged == [path.name]
    assert found.sum() == 2
    np.testing.assert_array_equal(out[found], features_of(np.flatnonzero(found)))
    assert (out[~found] == -1).all()
    assert not path.exists()


@pytest.mark.parametrize("keep", [0, 1, 100, 5000])
def test_a_file_cut_short_is_found(group, keep):
    add(group, [0, 1])
    path = shards(group)[0]
    path.write_bytes(path.read_bytes()[:keep])

    found, _, damaged = read(group, [0, 1])

    assert not found.any()
    assert damaged == [path.name]


def test_a_shard_of_other_features_is_refused(tmp_path, group):
    add(group, [0])
    other = FeatureStore(tmp_path / "store").open(make_key(weights="v"))
    (other.folder / "view-0").mkdir()
    shutil.copy(shards(group)[0], other.folder / "view-0")

    found, _, damaged = read(other, [0])

    assert not found.any()
    assert len(damaged) == 1


@pytest.mark.parametrize("kind", ["external link", "soft link", "external file", "virtual"])
def test_a_file_that_leads_out_of_itself_is_refused(tmp_path, kind):
    (tmp_path / "secret.bin").write_bytes(b"\0" * 64)
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        file.attrs["key"], file.attrs["view"] = "k", "view-0"
        file["images"] = np.zeros((1, 32), np.uint8)
        if kind == "external link":
            file["features"] = h5py.ExternalLink(str(tmp_path / "x.h5"), "/features")
        elif kind == "soft link":
            file["other"] = np.zeros((1, 1, 1, 1), "float32")
            file["features"] = h5py.SoftLink("/other")
        elif kind == "external file":
            file.create_dataset(
                "features", (1, 2, 2, 4), "float32", external=[(tmp_path / "secret.bin", 0, 64)]
            )
        else:
            layout = h5py.VirtualLayout((1, 2, 2, 4), "float32")
            layout[0] = h5py.VirtualSource(tmp_path / "x.h5", "features", (2, 2, 4))
            file.create_virtual_dataset("features", layout)
    path = tmp_path / f"{hashlib.sha256(memory.getvalue()).hexdigest()}.h5"
    path.write_bytes(memory.getvalue())

    with pytest.raises(ShardError, match="features is"):
        read_shard(path, "k", "view-0")


def test_a_shard_reads_back_bit_for_bit(tmp_path):
    for dtype in ("float16", "float32"):
        features = np.random.default_rng(0).normal(size=(5, 2, 3, 4)).astype(dtype)
        path = write_shard(tmp_path, "k", "view-0", [digest(n) for n in range(5)], features)
        again = read_shard(path, "k", "view-0")
        assert again.dtype == dtype
        np.testing.assert_array_equal(again, features)


WORKER = """
import sys, time
from pathlib import Path
sys.path.insert(0, "tests/ensemble/features")
import numpy as np
from test_store import digest, features_of, make_key
from ensemble.features.store import FeatureStore
folder, images, pause = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
group = FeatureStore(folder).open(make_key())
digests = [digest(n) for n in range(images)]
with group.locked(lambda: print("waiting", flush=True)):
    print("started", flush=True)
    found = group.read("view-0", digests, lambda path, reason: print("damaged", path, flush=True))
    missing = np.flatnonzero(~found)
    for start in range(0, len(missing), 8):
        time.sleep(pause)
        part = missing[start : start + 8].tolist()
        group.add("view-0", [digests[n] for n in part], features_of(part))
print("extracted", len(missing), flush=True)
"""


def start_worker(folder: Path, images: int, pause: float = 0.0) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(folder), str(images), str(pause)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_killed_at_any_moment_nothing_finished_is_lost(tmp_path):
    images, folder, generator = 4000, tmp_path / "store", random.Random(7)
    group = FeatureStore(folder).open(make_key())
    stored, kills, said = 0, 0, ""
    while kills < 15 and stored < images * 3 // 4:  # a fast disk needs fewer
        worker = start_worker(folder, images)
        assert worker.stdout.readline() == "started\n"
        time.sleep(generator.uniform(0, 0.12))
        worker.kill()
        said += worker.communicate()[0]
        kills += 1
        assert all(reason is None for _, reason in group.verify())
        assert group.image_count() >= stored
        stored = group.image_count()
    assert kills > 2  # or the kills came too late to mean anything
    assert 0 < stored < images

    last = start_worker(folder, images)
    assert f"extracted {images - stored}" in last.communicate()[0]

    assert "damaged" not in said
    assert list(group.folder.rglob("*.part")) == []
    found, out, _ = read(group, list(range(0, images, 37)))
    assert found.all()
    np.testing.assert_array_equal(out, features_of(list(range(0, images, 37))))


def test_two_processes_share_the_work_and_corrupt_nothing(tmp_path):
    workers = [start_worker(tmp_path / "store", 400, pause=0.01) for _ in range(2)]
    said = sorted(worker.communicate()[0].splitlines()[-1] for worker in workers)

    group = FeatureStore(tmp_path / "store").open(make_key())

    assert said == ["extracted 0", "extracted 400"]
    assert all(reason is None for _, reason in group.verify())
    assert group.image_count() == 400
    assert len(shards(group)) == 50


def test_a_process_that_was_killed_leaves_no_lock(tmp_path):
    worker = start_worker(tmp_path / "store", 400, pause=5)
    assert worker.stdout.readline() == "started\n"
    worker.kill()
    worker.wait()

    with FeatureStore(tmp_path / "store").open(make_key()).locked(pytest.fail):
        pass


@pytest.fixture
def small_disk(tmp_path: Path):
    """A disk of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_one_sentence_and_keeps_what_was_finished(small_disk):
    group = FeatureStore(small_disk / "store").open(make_key())
    numbers = [list(range(start, start + 8)) for start in range(0, 80, 8)]

    def fill() -> None:
        for part in numbers:
            add(group, part)

    with pytest.raises(StoreError, match=r"No space left.*--cache") as told:
        fill()

    assert "\n" not in str(told.value)
    stored = group.image_count()
    assert 0 < stored < 80
    assert list(group.folder.rglob("*.part")) == []
    found, out, damaged = read(group, list(range(80)))
    assert damaged == []
    assert found.sum() == stored
    np.testing.assert_array_equal(out[found], features_of(list(range(stored))))


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(StoreError, match="--cache"):
        FeatureStore(tmp_path / "file" / "store").open(make_key())
