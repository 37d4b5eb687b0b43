"""What is fixed about a sampling: everything but its tensors and the output size."""

from __future__ import annotations

from typing import NamedTuple

from mmdysample.ops.checks import check_positive, check_scale_factor

STYLES = ('lp', 'pl')
INITS = ('bilinear', 'nearest')
INFINITY = float('inf')


class SamplingSpec(NamedTuple):
    """How offsets are laid out and what they are added to; made by :meth:`make`.

    Args:
        scale_factor (int): Output pixels per input pixel ``s`` on each axis.
        groups (int): Channel groups ``G`` that share offsets.
        style (str): ``'lp'``: offsets are ``(N, 2 * G * s * s, H, W)``, pixel-shuffled by the
            operator; ``'pl'``: ``(N, 2 * G, sH, sW)``.
        scope_factor (float): What offsets are multiplied with.
        init (str): Initial positions, ``'bilinear'`` or ``'nearest'``.
    """

    scale_factor: int
    groups: int
    style: str
    scope_factor: float
    init: str

    @classmethod
    def make(
        cls,
        scale_factor: int = 2,
        groups: int = 4,
        style: str = 'lp',
        scope_factor: float | None = None,
        init: str = 'bilinear',
        *,
        dynamic: bool = False,
    ) -> SamplingSpec:
        """Check the options and fill in the default scope factor: 0.25, or 0.5 if ``dynamic``.

        Raises:
            TypeError: If ``scope_factor`` is no number.
            ValueError: If an option is out of range; the message names it.
        """
        check_scale_factor(scale_factor)
        check_positive('groups', groups)
        for name, value, allowed in (('style', style, STYLES), ('init', init, INITS)):
            if value not in allowed:
                raise ValueError(f'{name} must be one of {allowed}, got {value!r}')
        if scope_factor is None:
            scope_factor = 0.5 if dynamic else 0.25
        if isinstance(scope_factor, bool) or not isinstance(scope_factor, (int, float)):
            raise TypeError(f'scope_factor must be a number, got {scope_factor!r}')
        if not -INFINITY < scope_factor < INFINITY:  # torch.compile cannot trace math.isfinite
            raise ValueError(f'scope_factor must be finite, got {scope_factor!r}')
        return cls(scale_factor, groups, style, float(scope_factor), init)
