"""The table that `python -m ensemble.branches` prints."""

import pytest

from ensemble.commands.branches.__main__ import main


@pytest.mark.slow
def test_the_table_tells_the_stages_of_each_branch(tiny, capsys):
    assert main([]) == 0

    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "stages" in rows["name"]
    assert "stem, body" in rows["tiny"]
    assert "block1, block2, block3, block4, block5" in rows["vgg16"]
