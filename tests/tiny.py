"""A network small enough to be made in every test."""

import torch

from hftn_sr.networks import HFTNSR


def tiny_network(scale, zero=False):
    """Untrained; with a random last convolution, so that it is not zero-filling, unless asked."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(scale)
        network = HFTNSR(scale, channels=16, stages=1, blocks=1, embedding=8)
        if not zero:
            torch.nn.init.normal_(network.output.weight, std=0.02)
    return network.eval()
