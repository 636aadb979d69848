import pytest

from ensemble.system.files import atomic_path, remove_parts, write_atomic


def test_file_replaces_the_earlier_one(tmp_path):
    path = tmp_path / "new" / "table.csv"

    for content in (b"first", b"second"):
        write_atomic(path, content)

    assert path.read_bytes() == b"second"
    assert list(path.parent.iterdir()) == [path]


def test_folder_replaces_the_earlier_one(tmp_path):
    path = tmp_path / "export"

    for name in ("first", "second"):
        with atomic_path(path) as part:
            (part / "deep").mkdir(parents=True)
            (part / "deep" / name).touch()

    assert [file.name for file in path.rglob("*") if file.is_file()] == ["second"]
    assert list(tmp_path.iterdir()) == [path]


def test_failure_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "table.csv"
    write_atomic(path, b"first")

    with pytest.raises(ValueError, match="planned"), atomic_path(path) as part:  # noqa: PT012
        part.write_bytes(b"sec")
        raise ValueError("planned")

    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_parts_of_killed_processes_are_removed(tmp_path):
    part = tmp_path / "group" / ".part-x1"
    part.mkdir(parents=True)
    (part / "shard.h5").touch()

    remove_parts(tmp_path)

    assert list(tmp_path.rglob("*")) == [tmp_path / "group"]
