"""Swapping the upsampling inside a module whose forward calls ``F.interpolate``.

Many hosts resize inline, or share one parameter-free ``nn.Upsample`` among all their levels, where
a learned upsampler needs weights of its own per level. Nothing of such a host is rewritten here:
its calls of ``F.interpolate`` (``nn.Upsample`` makes them too) are found by running it once, and
in each later forward the k-th call goes to the upsampler made for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import ModuleList
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mmdysample.upsamplers import build_upsampler


@dataclass(frozen=True)
class UpsampleCall:
    """One call of ``F.interpolate`` during a forward.

    Attributes:
        name (str): Qualified name of the module that makes the call; '' is the host itself.
        channels (int): Channels of the feature.
        scale_factor (int or None): Output over input resolution; None where it isn't the same
            integer for height and width, so that no upsampler can take over.
        mode (str): How the host interpolates.
    """

    name: str
    channels: int
    scale_factor: int | None
    mode: str


class SwapUpsampleMixin:
    """Sends the interpolations of a host to its ``upsample_modules``.

    Put it before the host class and call :func:`swap_upsample` at the end of the constructor, or
    let :func:`swap_upsample` add it to an existing module. Checkpoints of the host keep fitting:
    its own parameter names stay as they are.
    """

    upsample_modules: ModuleList
    """One upsampler per swapped call, in the order of the calls."""

    upsample_order: list[int | None]
    """For each call of a forward, the index of its upsampler, or None where it isn't swapped."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the host with its interpolations redirected; arguments and result are the host's.

        Raises:
            RuntimeError: If the host calls ``F.interpolate`` more or less often than before.
        """
        made = 0

        def redirect(
            x: Tensor, size: Any = None, scale_factor: Any = None, *args: Any, **kwargs: Any
        ) -> Tensor:
            nonlocal made
            if made == len(self.upsample_order):
                raise RuntimeError(self._count_message('more'))
            index = self.upsample_order[made]
            made += 1
            if index is None:
                return F.interpolate(x, size, scale_factor, *args, **kwargs)
            return self.upsample_modules[index](x, size=_as_pair(size))

        with _InterpolateHandler(redirect):
            output = super().forward(*args, **kwargs)
        if made < len(self.upsample_order):
            raise RuntimeError(self._count_message('fewer'))
        return output

    def _count_message(self, relation: str) -> str:
        return (
            f'{type(self).__name__} made {relation} calls of F.interpolate than the '
            f'{len(self.upsample_order)} of the example that its upsamplers were made for'
        )


def swap_upsample(
    module: nn.Module,
    upsample_cfg: str | Mapping[str, Any],
    *example_inputs: Any,
    name: str = '*',
    scale_factor: int | None = None,
) -> nn.Module:
    """Replace the upsampling of an existing module by upsamplers, one for each call.

    Every call of ``F.interpolate`` and of ``nn.Upsample`` modules counts; ``name`` and
    ``scale_factor`` choose among them. Weights, parameter names and training mode of the module
    stay as they are; ``upsample_modules`` is new. Do this before the module is moved to a device
    and before its optimizer is built.

    .. code-block:: python

        detector = MODELS.build(cfg.model)
        levels = example_pyramid([128, 256, 512])
        swap_upsample(detector.neck, dict(type='dysample'), levels)

    Args:
        module (nn.Module): The host. It is changed in place: its class becomes a subclass of the
            one it had, so the object can be copied and its weights saved, but it isn't pickled
            whole.
        upsample_cfg (str or dict): As for :func:`mmdysample.build_upsampler`; guided types
            excepted, because a call of ``F.interpolate`` doesn't show the finer feature.
        *example_inputs: What forward takes, of sizes that make all levels whole multiples.
        name (str): Pattern, as of a shell, for :attr:`UpsampleCall.name`. Defaults to '*'.
        scale_factor (int, optional): Swap calls of this factor only. Defaults to None: all.

    Returns:
        nn.Module: The same module.

    Raises:
        ValueError: If no call can be swapped, the type is unknown or guided, or the module is
            swapped already or an ``nn.Sequential``.
        TypeError: If ``upsample_cfg`` has unknown keys.
    """
    if hasattr(module, 'upsample_modules'):
        raise ValueError(f'{type(module).__name__} already has upsample_modules')
    if isinstance(module, nn.Sequential):
        raise ValueError(
            f'{type(module).__name__} runs every module that it holds, so it would run '
            'upsample_modules too: swap the module that contains it, or wrap it in one'
        )
    calls = find_upsampling(module, *example_inputs)
    modules = ModuleList()
    order: list[int | None] = []
    for call in calls:
        wanted = call.scale_factor is not None and scale_factor in (None, call.scale_factor)
        if not (wanted and fnmatchcase(call.name, name)):
            order.append(None)
            continue
        order.append(len(modules))
        modules.append(build_upsampler(upsample_cfg, call.channels, call.scale_factor))
        if modules[-1].guided:
            raise ValueError(
                f'upsample_cfg names {type(modules[-1]).__name__}, which is guided; a swap has no '
                'finer feature to offer, so take an upsampler without a guide'
            )
    if not modules:
        raise ValueError(
            f'{type(module).__name__} has no upsampling with name={name!r} and '
            f'scale_factor={scale_factor!r}; its calls are {calls}'
        )
    if not isinstance(module, SwapUpsampleMixin):
        host = type(module)
        module.__class__ = type(f'Upsample{host.__name__}', (SwapUpsampleMixin, host), {})
    module.upsample_modules = modules
    module.upsample_order = order
    return module


def find_upsampling(module: nn.Module, *example_inputs: Any) -> list[UpsampleCall]:
    """Run a module once, without gradients or changes to it, and list its interpolations.

    Args:
        module (nn.Module): The module.
        *example_inputs: What its forward takes.

    Returns:
        list[UpsampleCall]: In the order of the calls.
    """
    calls: list[UpsampleCall] = []

    def record(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        output = F.interpolate(x, *args, **kwargs)
        mode = kwargs.get('mode', args[2] if len(args) > 2 else 'nearest')
        calls.append(UpsampleCall(running[-1], x.shape[1], _integer_ratio(x, output), mode))
        return output

    # A swapped module is run as the host that it was.
    swapped = isinstance(module, SwapUpsampleMixin)
    forward = super(SwapUpsampleMixin, module).forward if swapped else module.forward
    handler = _InterpolateHandler(record)
    with torch.no_grad(), _evaluation(module), _running_modules(module) as running, handler:
        forward(*example_inputs)
    return calls


def example_pyramid(in_channels: Sequence[int]) -> list[Tensor]:
    """Zero feature maps with which a neck can be run once.

    Args:
        in_channels (Sequence[int]): Channels of the levels, finest first.

    Returns:
        list[Tensor]: Maps ``(1, C_i, H_i, W_i)``; each side half the one before, the last 4, so
        that a neck can still halve it twice.
    """
    coarsest = len(in_channels) - 1
    return [
        torch.zeros(1, channels, *(2 * [4 * 2 ** (coarsest - level)]))
        for level, channels in enumerate(in_channels)
    ]


class _InterpolateHandler(TorchFunctionMode):
    """Hands every call of ``F.interpolate`` in its context to a function of the same arguments.

    PyTorch turns the mode off while the function runs, so that it may interpolate itself.
    """

    def __init__(self, handle: Callable[..., Tensor]) -> None:
        super().__init__()
        self.handle = handle

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        return (self.handle if func is F.interpolate else func)(*args, **(kwargs or {}))


@contextmanager
def _running_modules(module: nn.Module) -> Iterator[list[str]]:
    """Yield a stack whose last entry is the name of the submodule that runs at the moment."""
    stack = ['']
    handles = []
    for name, child in module.named_modules():
        if name:
            handles.append(child.register_forward_pre_hook(lambda *_, n=name: stack.append(n)))
            handles.append(child.register_forward_hook(lambda *_: _drop_last(stack)))
    try:
        yield stack
    finally:
        for handle in handles:
            handle.remove()


def _drop_last(stack: list[str]) -> None:
    """Pop without a result: what a forward hook returns would replace the output."""
    stack.pop()


@contextmanager
def _evaluation(module: nn.Module) -> Iterator[None]:
    """Keep batch statistics from being updated; afterwards each submodule has its own mode."""
    training = [(child, child.training) for child in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for child, mode in training:
            child.training = mode


def _integer_ratio(x: Tensor, output: Tensor) -> int | None:
    height, width = (out / given for out, given in zip(output.shape[2:], x.shape[2:], strict=True))
    return int(height) if height == width == int(height) >= 2 else None


def _as_pair(size: Any) -> tuple[int, int] | None:
    if size is None:
        return None
    return (size, size) if isinstance(size, int) else (size[0], size[1])
