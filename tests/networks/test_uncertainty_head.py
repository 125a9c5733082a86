"""The head that estimates errors takes what every network takes and gives, at any size, and learns a Laplace distribution's scale."""

import numpy as np
import pytest
import torch

from hftn_sr.acquisition import Acquisition, Full, KSpace, Slices
from hftn_sr.networks.uncertainty import CHANNELS, UncertaintyHead, head_input
from hftn_sr.training.uncertainty import LaplaceLoss


@pytest.mark.parametrize("size", [(16, 12), (17, 13)])
def test_it_gives_a_log_scale_for_each_voxel_whatever_the_size(size):
    with torch.no_grad():
        assert UncertaintyHead()(torch.zeros(2, CHANNELS, *size)).shape == (2, 1, *size)


def test_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"expected \(B, 8, H, W\)"):
        UncertaintyHead()(torch.zeros(1, 3, 16, 16))


def test_its_input_tells_what_each_axis_lost_in_kspace_and_in_slices():
    image, result = torch.rand(3, 16, 24), torch.rand(16, 24)
    kept = Acquisition((KSpace(4), Slices(3.0, 3.0)))
    stacked = head_input(image, result, kept)
    torch.testing.assert_close(stacked[:4], torch.cat([image, result[None]]))
    np.testing.assert_allclose(stacked[4:, 0, 0], [2, 0, 0, np.log2(3)], rtol=1e-6)
    assert (stacked[4:].amax((1, 2)) == stacked[4:].amin((1, 2))).all()
    assert not head_input(image, result, Acquisition((Full(), Full())))[4:].any()


def test_the_loss_is_least_where_the_scale_is_the_mean_absolute_error():
    error = torch.distributions.Exponential(1 / 0.03).sample((20_000,))
    log_scale = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.Adam([log_scale], 0.1)
    for _ in range(200):
        optimizer.zero_grad()
        LaplaceLoss()(log_scale.expand_as(error), error).backward()
        optimizer.step()
    assert float(log_scale.detach().exp()) == pytest.approx(float(error.mean()), rel=1e-2)


def test_it_learns_where_errors_are_large():
    torch.manual_seed(0)
    head, stacked = UncertaintyHead(), 0.1 * torch.rand(4, CHANNELS, 16, 16)
    stacked[:, 3, :, 8:] += 0.8
    truth = 0.01 + 0.1 * (stacked[:, 3:4] > 0.5)  # where the result is bright
    optimizer = torch.optim.Adam(head.parameters(), 3e-2)
    for _ in range(200):
        optimizer.zero_grad()
        LaplaceLoss()(head(stacked), truth * torch.distributions.Exponential(1.0).sample(truth.shape)).backward()
        optimizer.step()
    with torch.no_grad():
        found = head(stacked).exp()
    assert found[truth > 0.05].mean() > 3 * found[truth < 0.05].mean()
