"""The optimizer of the training workflow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ["Muon", "orthogonalized"]

NARROW = 8  # fewer output or input units than this make no matrix worth orthogonalizing


class Muon(Optimizer):
    r"""Momentum whose matrices are orthogonalized, for the convolutions inside a network, with Adam for everything else.

    The weight of a convolution is a matrix of C_out x (C_in k k). Its momentum :math:`M = U \Sigma V^T` moves the weight by about
    :math:`-\eta \sqrt{\max(1, C_{out} / (C_{in} k k))} \, U V^T`: every direction that the gradients agree on by the same amount, however
    small its singular value. Biases, vectors and matrices with a side below 8 (the output, the hidden units of channel attention) get Adam.
    In a trial of 1500 steps it reached Adam's last training loss after half of them (docs/design-log.md).

    Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks", kellerjordan.github.io/posts/muon.
    `torch.optim.Muon`, from torch 2.9 on, takes only two-dimensional weights.

    Args:
        network: whose parameters are trained.
        lr: step :math:`\eta` of the orthogonalized matrices.
        adam_lr: step of Adam.
        momentum: of the matrices, applied as Nesterov does.
        betas: of Adam.
        eps: of Adam.

    Raises:
        ValueError: a step that is not positive, or a momentum outside [0, 1).
    """

    def __init__(
        self,
        network: nn.Module,
        lr: float = 0.01,
        adam_lr: float = 1e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        if lr <= 0 or adam_lr <= 0:
            raise ValueError(f"expected positive learning rates, got {lr} and {adam_lr}")
        if not all(0 <= value < 1 for value in (momentum, *betas)):
            raise ValueError(f"expected momentum and betas in [0, 1), got {momentum} and {betas}")
        parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        groups = [
            {"params": [parameter for parameter in parameters if _is_matrix(parameter)], "lr": lr, "orthogonalize": True},
            {"params": [parameter for parameter in parameters if not _is_matrix(parameter)], "lr": adam_lr, "orthogonalize": False},
        ]
        defaults: dict[str, Any] = {"momentum": momentum, "betas": betas, "eps": eps}
        super().__init__([group for group in groups if group["params"]], defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; parameters without a gradient stay as they are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            update = self._update_matrix if group["orthogonalize"] else self._update_by_adam
            for parameter in group["params"]:
                if parameter.grad is not None:
                    update(parameter, parameter.grad, group)
        return loss

    def _update_matrix(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum = state["momentum"].lerp_(gradient, 1 - group["momentum"])
        direction = gradient.lerp(momentum, group["momentum"]).flatten(1)
        stretch = max(1.0, direction.shape[0] / direction.shape[1]) ** 0.5
        parameter.add_(orthogonalized(direction).view(parameter.shape), alpha=-group["lr"] * stretch)

    def _update_by_adam(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state.update(step=0, mean=torch.zeros_like(parameter), square=torch.zeros_like(parameter))
        first, second = group["betas"]
        state["step"] += 1
        state["mean"].lerp_(gradient, 1 - first)
        state["square"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        spread = (state["square"] / (1 - second ** state["step"])).sqrt_().add_(group["eps"])
        parameter.addcdiv_(state["mean"], spread, value=-group["lr"] / (1 - first ** state["step"]))


def orthogonalized(matrix: Tensor, iterations: int = 5) -> Tensor:
    r"""About :math:`U V^T` of :math:`U \Sigma V^T`: singular values that are not close to 0 come to lie between about 0.7 and 1.2.

    Newton-Schulz iterations of an odd polynomial of degree 5, in float32; exact values are not needed and would cost more iterations.
    Source: as for `Muon`, with its coefficients.

    Args:
        matrix: (M, N).
        iterations: number of polynomials applied.

    Returns:
        (M, N), float32; zeros for zeros.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    found = matrix.float()
    found = found / (found.norm() + 1e-7)  # the iteration needs singular values of at most 1
    tall = found.shape[0] > found.shape[1]
    found = found.mT if tall else found
    for _ in range(iterations):
        gram = found @ found.mT
        found = a * found + (b * gram + c * gram @ gram) @ found
    return found.mT if tall else found


def _is_matrix(parameter: Tensor) -> bool:
    return parameter.ndim >= 2 and min(len(parameter), parameter[0].numel()) >= NARROW
