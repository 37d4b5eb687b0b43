"""Swapping the upsampling inside a module whose forward calls ``F.interpolate``.

Many necks and heads resize inline, or share one parameter-free ``nn.Upsample`` among all their
levels, where a learned upsampler needs weights of its own per level. Nothing of such a module is
rewritten here. Its calls of ``F.interpolate`` (``nn.Upsample`` makes them too) are found by running
it once, and in each later forward the k-th call goes to the upsampler made for it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from mmengine.model import ModuleList
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mmdysample.upsamplers import Upsampler, build_upsampler


@dataclass(frozen=True)
class UpsampleCall:
    """One call of ``F.interpolate`` during a forward.

    Attributes:
        name (str): Qualified name of the module that makes the call; '' is the whole module.
        channels (int): Channels of the feature.
        scale_factor (int or None): Output over input resolution; None where it isn't the same
            integer for height and width, so that no upsampler can take over.
        mode (str): How the module interpolates.
    """

    name: str
    channels: int
    scale_factor: int | None
    mode: str

    @property
    def where(self) -> str:
        """The call in words, for messages."""
        return f'the F.interpolate in {self.name or "the module itself"!r}'


class SwapUpsampleMixin:
    """Sends the interpolations of a module to its ``upsample_modules``.

    Put it before the class of the module and call :func:`swap_upsample` at the end of the
    constructor, or let :func:`swap_upsample` add it to an existing module. Checkpoints of the
    stock module keep fitting: its own parameter names stay as they are.
    """

    upsample_modules: ModuleList
    """One upsampler per swapped call, in the order of the calls."""

    upsample_calls: list[UpsampleCall]
    """All calls of a forward, as the example made them."""

    upsample_order: list[int | None]
    """For each of these calls the index of its upsampler, or None where it isn't swapped."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the module with its interpolations redirected; arguments and result are its own.

        Raises:
            RuntimeError: If the module calls ``F.interpolate`` more or less often than with the
                example, or inside ``torch.utils.checkpoint`` while gradients are recorded.
            ValueError: If a call asks for another factor than with the example.
        """
        made = 0
        with_gradients = torch.is_grad_enabled()

        def redirect(
            x: Tensor, size: Any = None, scale_factor: Any = None, *args: Any, **kwargs: Any
        ) -> Tensor:
            nonlocal made
            if made == len(self.upsample_order):
                raise RuntimeError(self._count_message('more'))
            call, index = self.upsample_calls[made], self.upsample_order[made]
            made += 1
            if index is None:
                return F.interpolate(x, size, scale_factor, *args, **kwargs)
            if with_gradients and not torch.compiler.is_compiling():
                _refuse_checkpointing(call, SwapUpsampleMixin.forward)
            upsampler = self.upsample_modules[index]
            size = _check_request(call, upsampler, x, size, scale_factor)
            # Where swapped modules are nested, the outer one must not see how this one upsamples.
            with torch._C.DisableTorchFunction():
                return upsampler(x, size=size)

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
        module (nn.Module): A neck, a head or another module. It is changed in place: its class
            becomes a subclass of the one it had, so the object can be copied and its weights
            saved, but it isn't pickled whole.
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
        stock = type(module)
        module.__class__ = type(f'Upsample{stock.__name__}', (SwapUpsampleMixin, stock), {})
    module.upsample_modules = modules
    module.upsample_calls = calls
    module.upsample_order = order
    return module


class SwapPyramidMixin(SwapUpsampleMixin):
    """Swaps the upsampling of a neck or decoder that takes a pyramid of ``in_channels``.

    Args:
        in_channels (Sequence[int]): Channels of the input levels, finest first.
        *args: Further positional arguments of the stock class.
        upsample_cfg (str or dict): As for :func:`mmdysample.build_upsampler`, without guided
            types. Takes the place of the stock option of this name.
            Defaults to ``dict(type='dysample')``.
        **kwargs: Keyword arguments of the stock class.

    Raises:
        TypeError: If ``upsample_cfg`` has unknown keys.
        ValueError: If it names an unknown upsampler or a guided one.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        *args: Any,
        upsample_cfg: str | Mapping[str, Any] = 'dysample',
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, *args, **kwargs)
        swap_upsample(self, upsample_cfg, example_pyramid(in_channels))


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

    # A swapped module is run as the module that it was.
    swapped = isinstance(module, SwapUpsampleMixin)
    forward = super(SwapUpsampleMixin, module).forward if swapped else module.forward
    handler = _InterpolateHandler(record)
    with torch.no_grad(), _evaluation(module), _running_modules(module) as running, handler:
        forward(*example_inputs)
    return calls


def example_pyramid(in_channels: Sequence[int]) -> list[Tensor]:
    """Make feature maps of zeros with which a neck can be run once.

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
    ratios = {out / given for out, given in zip(output.shape[2:], x.shape[2:], strict=True)}
    ratio = ratios.pop()
    whole = x.dim() == 4 and not ratios and ratio == int(ratio) >= 2
    return int(ratio) if whole else None


def _refuse_checkpointing(call: UpsampleCall, forward: Callable) -> None:
    """Raise if a checkpointed function, called since ``forward``, makes the call.

    Its recomputation in the backward pass happens after ``forward``, so nothing redirects the
    call there: the gradients would be those of the stock interpolation.
    """
    frame = sys._getframe(1)
    while frame is not None and frame.f_code is not forward.__code__:
        if frame.f_code.co_filename == torch.utils.checkpoint.__file__:
            raise RuntimeError(
                f'{call.where} is called inside torch.utils.checkpoint (with_cp=True?), where '
                'the backward pass would not find its upsampler: turn that off, or checkpoint '
                'the swapped module as a whole'
            )
        frame = frame.f_back


def _check_request(
    call: UpsampleCall, upsampler: Upsampler, x: Tensor, size: Any, scale_factor: Any
) -> tuple[int, int] | None:
    """Find the ``size`` for an upsampler, if the call asks for the factor that it has."""
    if size is None:
        factors = _as_pair(scale_factor)
        if any(factor != call.scale_factor for factor in factors):
            raise ValueError(
                f'{call.where} was swapped for scale_factor={call.scale_factor}, '
                f'but asks for scale_factor={scale_factor}'
            )
        return None
    try:
        return upsampler.output_size(x, _as_pair(size))
    except ValueError as error:
        raise ValueError(
            f'{call.where} was swapped for scale_factor={call.scale_factor}, but asks for '
            f'size={_as_pair(size)} of a feature of {tuple(x.shape[-2:])}: {error}'
        ) from None


def _as_pair(value: Any) -> tuple[Any, Any]:
    return (value[0], value[1]) if isinstance(value, Sequence) else (value, value)
