"""Pictures have one scale for all errors and show the place where a difference is claimed."""

from __future__ import annotations

import io

import matplotlib.image
import numpy as np
import pytest

from hftn_sr.pictures import CHANGE, MARK, STRONG, change, comparison, headline, picture
from phantoms import phantom

MARKED = np.array([int(MARK[start : start + 2], 16) for start in (1, 3, 5)]) / 255


def pixels(png):
    return matplotlib.image.imread(io.BytesIO(png))[..., :3]


@pytest.mark.parametrize(("share", "place"), [(-STRONG, 0.0), (0.0, 0.5), (STRONG, 1.0), (2 * STRONG, 1.0)])
def test_an_error_has_the_colour_of_its_share_of_the_peak(share, place):
    peak = 700.0
    drawn = pixels(picture([change("error", np.full((40, 40), share / 100 * peak, np.float32), peak)], "heading"))
    centre = drawn[drawn.shape[0] // 2, drawn.shape[1] // 3]
    assert centre == pytest.approx(CHANGE(place)[:3], abs=0.01)


def test_errors_of_an_image_without_signal_are_zero():
    assert change("error", np.zeros((4, 4), np.float32), 0.0).image.max() == 0


def test_the_inset_is_where_the_result_comes_nearest_to_the_truth():
    truth = phantom((96, 96, 3), degrees=(0, 0, 0))
    result = truth.on(truth.grid, truth.data.copy())
    drawn = []
    for corner in ((30, 40), (55, 60)):
        low = truth.on(truth.grid, truth.data.copy())
        low.data[corner[0] : corner[0] + 6, corner[1] : corner[1] + 6] += 100
        drawn.append(pixels(headline(truth, low, result, 2, "heading", ("a", "b"), dpi=110)))
    outlined = [np.argwhere(np.abs(each[: len(each) // 2] - MARKED).max(axis=2) < 0.05) for each in drawn]
    first, second = (each.min(axis=0) for each in outlined)
    assert first[0] > second[0]  # anterior is up: the second lies higher
    assert first[1] > second[1]  # and further to the patient's left or right than the first


def test_a_comparison_shows_the_middle_slice_alone():
    truth = phantom((48, 48, 5))
    images = {name: truth.on(truth.grid, truth.data * weight) for name, weight in (("low", 0.8), ("result", 0.9), ("reference", 0.5))}
    before = comparison(truth, images["low"], images["result"], images["reference"], 2, "heading")
    for place, same in ((1, True), (2, False)):
        other = truth.on(truth.grid, images["result"].data.copy())
        other.data[..., place] *= 0.5
        assert (comparison(truth, images["low"], other, images["reference"], 2, "heading") == before) is same
