"""Laws of downloads: checked, once, whole, and missed in one sentence."""

import hashlib

import pytest

from configs.errors import WeightsError
from ensemble.faces.downloads import Download, find_download
from ensemble.system import user_cache

CONTENT = b"a model"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def origin(tmp_path):
    """A file that stands for one on the network."""
    path = tmp_path / "origin.onnx"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """Where the download goes."""
    monkeypatch.setattr(user_cache, "user_cache_path", lambda *_, **__: tmp_path / "cache")
    return tmp_path / "cache" / "models" / "model.onnx"


def wanted(origin, sha256=SHA256):
    return Download("model.onnx", origin.as_uri(), sha256)


def test_a_file_is_downloaded_once(origin, cached):
    assert find_download(wanted(origin)) == cached
    assert cached.read_bytes() == CONTENT

    origin.unlink()
    assert find_download(wanted(origin)) == cached


def test_a_damaged_file_is_downloaded_again(origin, cached):
    cached.parent.mkdir(parents=True)
    cached.write_bytes(CONTENT[:3])

    assert find_download(wanted(origin)).read_bytes() == CONTENT


def test_what_has_another_checksum_is_not_kept(origin, cached):
    with pytest.raises(WeightsError, match="another checksum"):
        find_download(wanted(origin, sha256="0" * 64))

    assert list(cached.parent.iterdir()) == []


def test_a_failed_download_names_the_ways_on(origin, cached):
    origin.unlink()

    with pytest.raises(WeightsError) as caught:
        find_download(wanted(origin))

    for words in (origin.as_uri(), "--face-model", "--faces haar", "network"):
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_given_file_is_taken_as_it_is(origin, cached, tmp_path):
    other = tmp_path / "other.onnx"
    other.write_bytes(b"another model")

    assert find_download(wanted(origin), other) == other
    assert not cached.exists()
    with pytest.raises(WeightsError, match="There is no file"):
        find_download(wanted(origin), tmp_path / "missing.onnx")
