"""The optimizer of the training workflow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ["Muon", "orthogonalized"]

NARROW = 8  # smallest side of a matrix that is orthogonalized


class Muon(Optimizer):
    r"""Muon for the convolutions inside a network, Adam for its other parameters.

    The weight of a convolution is a matrix of C_out x (C_in k k). Its momentum :math:`M = U \Sigma V^T` moves the weight by about
    :math:`-\eta \sqrt{\max(1, C_{out} / (C_{in} k k))} \, U V^T`: all directions move by the same amount, however small their singular
    value. Biases, vectors and matrices with a side below 8 (the output, the hidden units of channel attention) are left to Adam.
    Matrices of one shape are orthogonalized together, which saves most of the time of a step of a small network.
    In a trial of 1500 steps, Muon reached Adam's last training loss after half of them (docs/design-log.md).

    A step flushes denormals to zero (`torch.set_flush_denormal`, in its own thread). The momentum of a unit that no longer fires decays
    into denormals, which slow a CPU down: a step of `base` took up to eight times as long.

    Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks", kellerjordan.github.io/posts/muon.
    `torch.optim.Muon` (torch 2.9 and later) takes only two-dimensional weights.

    Args:
        network: network in training.
        lr: learning rate :math:`\eta` of the orthogonalized matrices.
        adam_lr: learning rate of Adam.
        momentum: Nesterov momentum of the matrices.
        betas: decay rates of Adam's moments.
        eps: term in Adam's denominator.

    Raises:
        ValueError: a learning rate that is not positive, or a momentum or beta outside [0, 1).
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
        with _denormals_flushed():
            for group in self.param_groups:
                parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
                if parameters:
                    (self._update_matrices if group["orthogonalize"] else self._update_by_adam)(parameters, group)
        return loss

    def _update_matrices(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        gradients, states = _gradients(parameters), [self.state[parameter] for parameter in parameters]
        for state, parameter in zip(states, parameters, strict=True):
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
        momenta = [state["momentum"] for state in states]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
        for parameter, direction in zip(parameters, torch._foreach_lerp(gradients, momenta, group["momentum"]), strict=True):
            # Channels last, as in memory; the order of the columns does not change the result.
            by_shape.setdefault(parameter.movedim(1, -1).shape, []).append((parameter, direction.movedim(1, -1).flatten(1)))
        for shape, pairs in by_shape.items():
            alike, directions = zip(*pairs, strict=True)
            stretch = max(1.0, directions[0].shape[0] / directions[0].shape[1]) ** 0.5
            updates = orthogonalized(torch.stack(directions)).view(-1, *shape).movedim(-1, 2)
            torch._foreach_add_(alike, updates.unbind(), alpha=-group["lr"] * stretch)

    def _update_by_adam(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        gradients, states = _gradients(parameters), [self.state[parameter] for parameter in parameters]
        for state, parameter in zip(states, parameters, strict=True):
            if not state:
                state.update(step=0, mean=torch.zeros_like(parameter), square=torch.zeros_like(parameter))
            state["step"] += 1
        first, second = group["betas"]
        means, squares = [state["mean"] for state in states], [state["square"] for state in states]
        torch._foreach_lerp_(means, gradients, 1 - first)
        torch._foreach_mul_(squares, second)
        torch._foreach_addcmul_(squares, gradients, gradients, value=1 - second)
        spreads = torch._foreach_div(squares, [1 - second ** state["step"] for state in states])
        torch._foreach_sqrt_(spreads)
        torch._foreach_add_(spreads, group["eps"])
        torch._foreach_addcdiv_(parameters, means, spreads, [-group["lr"] / (1 - first ** state["step"]) for state in states])


@contextmanager
def _denormals_flushed() -> Iterator[None]:
    if torch.tensor(1e-39).mul(1).item() == 0:  # already flushed; torch has no query for it
        yield
        return
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def orthogonalized(matrices: Tensor, iterations: int = 5) -> Tensor:
    r"""Approximation of :math:`U V^T` for :math:`U \Sigma V^T`: singular values not close to 0 become about 0.7 to 1.2.

    Newton-Schulz iterations of an odd polynomial of degree 5, in float32. More iterations would be more exact, which is not needed.
    Each iteration multiplies :math:`X` by a polynomial of :math:`X X^T`. If one side is at least twice the other, the small square
    matrices are iterated and their product is applied to :math:`X` at the end: equal up to rounding, with a fraction of the MACs.
    Source and coefficients: see `Muon`.

    Args:
        matrices: (..., M, N), a batch.
        iterations: number of iterations.

    Returns:
        (..., M, N), float32; zeros for zeros.
    """
    found = matrices.float().reshape(-1, *matrices.shape[-2:])
    found = found / (torch.linalg.matrix_norm(found, keepdim=True) + 1e-7)  # the iteration needs singular values of at most 1
    tall = found.shape[-2] > found.shape[-1]
    found = _levelled(found.mT, iterations).mT if tall else _levelled(found, iterations)
    return found.reshape(matrices.shape)


def _levelled(wide: Tensor, iterations: int) -> Tensor:
    """Newton-Schulz iterations of matrices (K, M, N) with M <= N."""
    if wide.shape[-1] < 2 * wide.shape[-2]:
        for _ in range(iterations):
            wide = _polynomial(wide @ wide.mT) @ wide
        return wide
    gram = wide @ wide.mT
    product = _polynomial(gram)
    factor = product
    for _ in range(iterations - 1):
        gram = factor @ gram @ factor
        factor = _polynomial(gram)
        product = factor @ product
    return product @ wide


def _polynomial(gram: Tensor) -> Tensor:
    a, b, c = 3.4445, -4.7750, 2.0315
    value = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
    value.diagonal(dim1=-2, dim2=-1).add_(a)
    return value


def _gradients(parameters: list[Tensor]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def _is_matrix(parameter: Tensor) -> bool:
    return parameter.ndim >= 2 and min(len(parameter), parameter[0].numel()) >= NARROW
