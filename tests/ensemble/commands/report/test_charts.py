"""Laws of charts: what is drawn lies where the values say."""

import re
from xml.etree import ElementTree

import pytest

from ensemble.commands.report.charts import draw_epochs, draw_interval, draw_reliability
from ensemble.metrics.calibration import Bin


def lines(chart: str, series: str) -> list[list[tuple[float, float]]]:
    """Returns the points of each piece of a line."""
    found = re.findall(rf'<polyline points="([^"]*)" class="line-{series}">', chart)
    return [[tuple(map(float, point.split(","))) for point in piece.split()] for piece in found]


def test_a_higher_value_lies_higher_and_within_the_drawing():
    chart = draw_epochs("Loss", [3.0, 2.0, 1.0], [3.5, 3.5, 0.2], 2)

    [training], [validation] = lines(chart, "training"), lines(chart, "validation")
    assert training[0][1] < training[1][1] < training[2][1]  # downwards
    assert training[1][1] - training[0][1] == pytest.approx(
        training[2][1] - training[1][1], abs=0.1
    )
    assert all(0 < x < 360 and 0 < y < 230 for x, y in (*training, *validation))
    assert validation[2][1] == max(y for _, y in (*training, *validation))


@pytest.mark.parametrize("values", [[0.0], [1.0, 1.0], [1e-9, 2e-9], [1e6, 5e6], [0.333, 0.334]])
def test_any_range_of_values_can_be_drawn(values):
    for percent in (False, True):
        chart = draw_epochs("Loss", values, [], None, percent=percent)

        ElementTree.fromstring(chart)
        [piece] = lines(chart, "training")
        assert all(26 <= y <= 194 for _, y in piece)
        labels = re.findall(r'class="label end">([^<]*)</text>', chart)[: -len(("key", "key"))]
        assert len(set(labels)) == len(labels) > 1


def test_a_value_that_is_no_number_breaks_the_line():
    chart = draw_epochs("Loss", [1.0, 2.0, float("nan"), 3.0, float("inf")], [], None)

    assert [len(piece) for piece in lines(chart, "training")] == [2, 1, 0]


def test_an_interval_is_drawn_from_end_to_end():
    chart = draw_interval(0.5, 0.25, 1.0, reference=0.0)

    assert 'cx="50.00%"' in chart
    assert 'x1="26.50%" x2="97.00%"' in chart  # of 3 to 97
    assert 'x1="3.00%" x2="3.00%"' in chart


def test_bins_on_the_diagonal_are_drawn_on_it_and_empty_ones_not():
    bins = [Bin(0.0, 0.5, 0, None, None), *(Bin(x, x + 0.1, 9, x, x) for x in (0.5, 0.6, 0.9))]

    [piece] = lines(draw_reliability(bins, []), "validation")

    assert len(piece) == 3
    for x, y in piece:  # the frame is 300 wide and high, from (48, 26)
        assert x - 48 == pytest.approx(26 + 300 - y)
