"""A network, a loss and an optimizer that this package does not know."""

import torch
from torch import nn


class OwnNet(nn.Module):
    """Two layers with one weight, which is stored once in memory; `hidden` is not kept under its name."""

    def __init__(self, hidden=4):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, hidden, 3, padding=1), nn.Conv2d(hidden, hidden, 1)
        self.third, self.last = nn.Conv2d(hidden, hidden, 1), nn.Conv2d(hidden, 1, 1)
        self.third.weight = self.second.weight
        nn.init.zeros_(self.last.weight)

    def forward(self, image):
        return image[:, :1] + self.last(self.third(self.second(self.first(image)).relu()).relu())


class OwnLoss(nn.Module):
    def __init__(self, power=1.5):
        super().__init__()
        self.power = power

    def forward(self, pred, label):
        return (pred - label).abs().pow(self.power).mean()


class OwnOptimizer(torch.optim.SGD):
    """SGD under a name of its own."""
