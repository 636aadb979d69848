"""Laws of the journal: what is written counts, what a kill cut short does not."""

from pathlib import Path

import pytest

from configs.errors import DataError
from ensemble.commands.prepare.journal import Journal

SETTINGS = {"margin": 0.1, "align": False}


@pytest.fixture
def path(tmp_path):
    return tmp_path / ".journal.jsonl"


def write(path, *records, settings=SETTINGS):
    journal = Journal(path)
    with journal.opened(settings):
        before = dict(journal.records)
        for record in records:
            journal.add(record)
    return before


def test_records_are_found_again_and_later_ones_count(path):
    assert write(path, {"name": "ä", "n": 1}, {"name": "b", "n": 2}) == {}
    assert write(path, {"name": "b", "n": 3}) == {
        "ä": {"name": "ä", "n": 1},
        "b": {"name": "b", "n": 2},
    }
    assert write(path)["b"] == {"name": "b", "n": 3}


def test_a_journal_cut_anywhere_keeps_its_whole_lines(path):
    write(path, {"name": "a"}, {"name": "b"})
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)

    for length in range(len(content)):
        path.write_bytes(content[:length])
        whole = sum(length >= sum(map(len, lines[: n + 1])) for n in range(len(lines)))
        expected = ["a", "b"][: max(0, whole - 1)]
        assert sorted(write(path, {"name": "c"})) == expected
        assert sorted(write(path)) == [*expected, "c"]


def test_other_settings_are_refused(path):
    write(path, {"name": "a"})

    with pytest.raises(DataError, match=r"other settings \(margin: 0.1 then, 0.4 now\)"):
        write(path, settings=SETTINGS | {"margin": 0.4})


def test_two_processes_do_not_share_a_journal(path):
    with Journal(path).opened(SETTINGS), pytest.raises(DataError, match="Another process"):
        write(path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk that is always full")
def test_a_full_disk_is_told_in_a_sentence(path):
    path.symlink_to("/dev/full")

    with pytest.raises(DataError, match="No space left on device"):
        write(path)
