"""What a result adds: everything beyond what was measured, and nothing of that."""

import numpy as np
import pytest
import torch

from hftn_sr.acquisition import Acquisition, Full, KSpace, Slices
from hftn_sr.inference.acquired import Acquired
from hftn_sr.inference.added import added_detail
from hftn_sr.volumes.volume import Grid

SHAPE = (24, 20, 18)
KEPT = {
    "x2": (KSpace(12), KSpace(10), Full()),
    "one axis": (Full(), KSpace(7), Full()),
    "slices": (Full(), Full(), Slices(6.0, 6.0)),
    "both": (KSpace(12), KSpace(11), Slices(2.5, 3.0)),
    "nothing lost": (Full(), Full(), Full()),
}


def found(name, image, through_plane=2):
    order = {2: [0, 1, 2], 0: [2, 0, 1]}[through_plane]
    kept = Acquisition(KEPT[name]).select(order)
    data = np.ascontiguousarray(image.transpose(order))
    into = np.empty_like(data)
    added_detail(data, Acquired(Grid(data.shape, np.eye(4)), through_plane, kept, kept.measured_shape(data.shape), ""), into)
    return data, into, kept


@pytest.mark.parametrize("through_plane", [0, 2])
@pytest.mark.parametrize("name", KEPT)
def test_detail_and_what_the_scan_shows_add_up_to_the_image(name, through_plane):
    data, detail, kept = found(name, np.random.default_rng(0).normal(100, 30, SHAPE).astype(np.float32), through_plane)
    shown = kept.split(torch.from_numpy(data).double())[0].numpy()
    np.testing.assert_allclose(detail + shown, data, rtol=0, atol=2e-4)  # float32 of values around 100
    assert (np.abs(detail).max() > 1) == (name != "nothing lost")


@pytest.mark.parametrize("name", ["x2", "one axis"])
def test_nothing_of_the_measured_band_is_in_it(name):
    _, detail, kept = found(name, np.random.default_rng(0).normal(100, 30, SHAPE).astype(np.float32))
    assert np.abs(kept.simulate(torch.from_numpy(detail).double()).numpy()).max() < 1e-4


def test_an_image_that_was_measured_whole_adds_nothing():
    low = np.random.default_rng(0).normal(100, 30, (12, 10, 18))
    image = Acquisition(KEPT["x2"]).interpolate(torch.from_numpy(low), SHAPE).float().numpy()
    assert np.abs(found("x2", image)[1]).max() < 1e-3
