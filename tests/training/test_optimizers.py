"""The optimizer against its definition, against torch's, and on the network that it is for."""

import copy

import pytest
import torch
from torch import nn

from hftn_sr.training.optimizers import Muon, orthogonalized
from tiny import tiny_network


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(8, 8), (16, 72), (72, 16)])
def test_an_orthogonalized_matrix_keeps_its_directions_and_levels_their_strength(shape):
    matrix = noise(*shape).double()
    left, strength, right = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonalized(matrix).double()
    assert found.shape == shape
    levelled = left.mT @ found @ right.mT
    assert strength.max() / strength.min() > 1.3
    torch.testing.assert_close(levelled, torch.diag(levelled.diagonal()), atol=2e-3, rtol=0)
    assert levelled.diagonal().min() > 0.5 and levelled.diagonal().max() < 1.3


@pytest.mark.parametrize("shape", [(5, 8, 8), (5, 16, 72), (5, 72, 16)])
def test_matrices_are_orthogonalized_together_as_each_alone(shape):
    matrices = noise(*shape) * torch.logspace(-3, 3, 5)[:, None, None]
    torch.testing.assert_close(orthogonalized(matrices), torch.stack([orthogonalized(matrix) for matrix in matrices]), rtol=1e-3, atol=1e-5)


def test_iterating_the_small_square_matrices_is_iterating_the_matrix():
    wide = noise(16, 72).double()
    wide = (torch.linalg.svd(wide, full_matrices=False)[2].mT * torch.logspace(0, -4, 16)).mT  # directions from strong to very weak
    by_definition = wide / wide.norm()
    for _ in range(5):
        gram = by_definition @ by_definition.mT
        by_definition = 3.4445 * by_definition + (-4.7750 * gram + 2.0315 * gram @ gram) @ by_definition
    torch.testing.assert_close(orthogonalized(wide).double(), by_definition, rtol=0, atol=2e-3)


def test_convolutions_of_one_shape_learn_from_their_own_gradients_and_one_without_stays():
    together = nn.ModuleList(nn.Conv2d(8, 8, 3, bias=False) for _ in range(3))
    alone = copy.deepcopy(together)
    for index in (0, 2):
        for network in (together, alone):
            network[index].weight.grad = noise(8, 8, 3, 3, seed=index)
    still = together[1].weight.detach().clone()
    Muon(together).step()
    for network in alone:
        Muon(network).step()
    assert torch.equal(together[1].weight, still)
    for own, other in zip(together.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(own, other)


def test_no_gradient_no_direction():
    assert not orthogonalized(torch.zeros(9, 12)).any()


def test_vectors_and_narrow_matrices_move_as_torch_s_adam_moves_them():
    ours = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 1, 3))
    theirs = copy.deepcopy(ours)
    optimizers = Muon(ours, adam_lr=0.01), torch.optim.Adam(theirs.parameters(), 0.01)
    for step in range(5):
        for network, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            network(noise(2, 3, 8, 8, seed=step)).square().mean().backward()
            optimizer.step()
    for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(own, other)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_first_step_of_a_convolution_is_along_its_orthogonalized_gradient(memory_format):
    network = nn.Conv2d(8, 32, 1, bias=False).to(memory_format=memory_format)
    before = network.weight.detach().clone()
    network.weight.grad = noise(32, 8, 1, 1).contiguous(memory_format=memory_format)
    Muon(network, lr=0.1).step()
    torch.testing.assert_close(network.weight.detach(), before - 0.1 * 2 * orthogonalized(noise(32, 8)).view(32, 8, 1, 1))


def test_a_convolution_learns_a_given_one_sooner_than_with_adam():
    data, left = noise(4, 16, 12, 12), {}
    wanted = nn.functional.conv2d(data, noise(16, 16, 3, 3, seed=1) / 12, padding=1)
    for name in ("muon", "adam"):
        torch.manual_seed(0)
        network = nn.Conv2d(16, 16, 3, padding=1)
        optimizer = Muon(network, lr=0.05) if name == "muon" else torch.optim.Adam(network.parameters(), 1e-3)
        for _ in range(60):
            optimizer.zero_grad()
            loss = (network(data) - wanted).abs().mean()
            loss.backward()
            optimizer.step()
        left[name] = float(loss.detach())
    assert left["muon"] < 0.7 * left["adam"]


def test_a_run_goes_on_from_its_stored_state_as_if_it_had_never_stopped(tmp_path):
    def steps(network, optimizer, first, last):
        for step in range(first, last):
            optimizer.zero_grad()
            (network(noise(1, 3, 16, 16, seed=step)) - 1).abs().mean().backward()
            optimizer.step()

    unbroken, broken = tiny_network(2), tiny_network(2)
    steps(unbroken, Muon(unbroken), 0, 4)
    optimizer = Muon(broken)
    steps(broken, optimizer, 0, 2)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    resumed = Muon(broken)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    steps(broken, resumed, 2, 4)
    for own, other in zip(unbroken.parameters(), broken.parameters(), strict=True):
        assert torch.equal(own, other)


@pytest.mark.parametrize("options", [{"lr": 0}, {"adam_lr": -1}, {"momentum": 1.0}, {"betas": (0.9, 1.0)}])
def test_steps_and_momenta_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="expected"):
        Muon(nn.Conv2d(1, 1, 1), **options)


def test_momentum_without_gradients_ends_at_zero_not_in_subnormal_numbers():
    network = nn.Linear(16, 16, bias=False)
    optimizer = Muon(network)
    network.weight.grad = 1e-37 * noise(16, 16)
    optimizer.step()
    network.weight.grad = torch.zeros(16, 16)
    for _ in range(100):  # 0.95 ** 100 takes it below 1.2e-38, the smallest normal number; without that, 0 comes after 300
        optimizer.step()
    assert not optimizer.state[network.weight]["momentum"].any()
    assert network.weight.isfinite().all()
    assert torch.tensor(1e-39).mul(1).item() > 0  # everything else in the process still has them
