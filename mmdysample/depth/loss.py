"""The scale-invariant log loss of DepthFormer."""

from __future__ import annotations

import math

import torch
from mmseg.models.losses import SiLogLoss
from torch import Tensor

_MEAN_WEIGHT = 0.15
_WARM_UP_SHIFT = 0.1
_FLOOR = 1e-12


class SigLoss(SiLogLoss):
    r"""Scale-invariant log loss over all valid pixels of a batch.

    With :math:`g_i = \log(d_i + \epsilon) - \log(d^*_i + \epsilon)` at the :math:`n` valid pixels
    it is

    .. math:: \sqrt{\frac{1}{n - 1} \sum_i (g_i - \bar g)^2 + 0.15\,\bar g^2}

    which is Eq. 5 of arXiv 2203.14211 with :math:`\lambda = 0.85`, in the form of the
    Monocular-Depth-Estimation-Toolbox: the variance is the sample's, and :math:`\epsilon` of 1 mm
    is added to both depths. mmseg's ``SiLogLoss`` differs: it uses :math:`\lambda = 0.5` and
    averages over images. One pixel has no variance; the mean alone counts then.

    Pixels whose depth is not a positive finite number, or above ``max_depth``, have no influence;
    a batch without any other gives zero.

    Args:
        max_depth (float, optional): Largest depth to learn from, in metres. Defaults to None.
        warm_up_iters (int): For so many training steps only :math:`\sqrt{0.15}\,|\bar g|` counts,
            with 0.1 m added to both depths instead: the toolbox's remedy where direct regression
            does not start to learn (its value: 100). The count is saved with the weights.
            Defaults to 0.
        loss_weight (float): Factor of the loss. Defaults to 1.
        eps (float): What is added to both depths, in metres; negative predictions count as
            zero. Defaults to 1e-3.
        loss_name (str): Defaults to ``'loss_depth'``.

    Raises:
        ValueError: If ``max_depth``, ``warm_up_iters`` or ``eps`` is out of range.
    """

    def __init__(
        self,
        max_depth: float | None = None,
        warm_up_iters: int = 0,
        loss_weight: float = 1.0,
        eps: float = 1e-3,
        loss_name: str = 'loss_depth',
    ) -> None:
        super().__init__(loss_weight=loss_weight, eps=eps, loss_name=loss_name)
        if max_depth is not None and not max_depth > 0:
            raise ValueError(f'max_depth must be positive or None, got {max_depth!r}')
        if not isinstance(warm_up_iters, int) or warm_up_iters < 0:
            raise ValueError(f'warm_up_iters must be an integer >= 0, got {warm_up_iters!r}')
        if not eps > 0:
            raise ValueError(f'eps must be positive, got {eps!r}')
        self.max_depth = math.inf if max_depth is None else max_depth
        self.warm_up_iters = warm_up_iters
        if warm_up_iters:
            self.register_buffer('steps', torch.zeros((), dtype=torch.long))

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            pred (Tensor): Predicted depth in metres.
            target (Tensor): True depth in metres, of the same shape; zero where there is none.

        Returns:
            Tensor: A scalar.

        Raises:
            ValueError: If the shapes differ.
        """
        if pred.shape != target.shape:
            raise ValueError(
                f'pred and target must have one shape, got {tuple(pred.shape)} '
                f'and {tuple(target.shape)}'
            )
        valid = (target > 0) & target.isfinite() & (target <= self.max_depth)
        pred, target = pred[valid].clamp(min=0), target[valid]
        warming_up = self._step()
        if not len(pred):
            return pred.sum()  # zero, and in the graph
        shift = _WARM_UP_SHIFT if warming_up else self.eps
        gap = torch.log(pred + shift) - torch.log(target + shift)
        if warming_up:
            return self.loss_weight * math.sqrt(_MEAN_WEIGHT) * gap.mean().abs()
        squared = gap.var(correction=min(1, len(gap) - 1)) + _MEAN_WEIGHT * gap.mean() ** 2
        # Below the bound the root's slope would be infinite, and 0 * inf is no gradient.
        return self.loss_weight * squared.clamp(min=_FLOOR).sqrt()

    def _step(self) -> bool:
        """Tell whether to warm up, and count the steps of training until that is over."""
        if not (self.training and self.warm_up_iters) or self.steps >= self.warm_up_iters:
            return False
        self.steps += 1
        return True
