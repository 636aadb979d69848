"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real faces that some tests measure on; they skip without it."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("ENSEMBLE_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real faces at {folder}; set ENSEMBLE_TEST_DATA to their folder")
    return folder
