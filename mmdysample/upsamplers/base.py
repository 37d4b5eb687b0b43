"""The interface that every upsampler keeps, and the one function that builds them by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdysample.ops.backend import only_plain_operators
from mmdysample.ops.checks import check_feature, check_positive, check_scale_factor, resolve_size


class Upsampler(nn.Module):
    """A feature upsampler: ``(N, C, H, W)`` to ``(N, C, sH, sW)``, or to ``(N, C, *size)``.

    A neck or a head calls ``up(x, guide=finer, size=finer.shape[-2:])`` whatever the type of its
    upsampler: upsamplers that need no guide ignore it. Subclasses implement :meth:`upsample`,
    which sees checked input only, and :meth:`init_weights`.

    Args:
        in_channels (int): Channels ``C`` of the feature to upsample.
        scale_factor (int): Ratio ``s`` of output to input resolution, at least 2.
            Defaults to 2.
        guide_channels (int, optional): Channels ``Cg`` of the guide; guided upsamplers only.
            Defaults to ``in_channels``.

    Raises:
        ValueError: If an argument is out of range.
        TypeError: If an argument is of the wrong type.
    """

    guided = False
    """Whether :meth:`forward` needs the ``(N, Cg, sH, sW)`` feature that it upsamples towards."""

    only_doubles = False
    """Whether 2 is the only ``scale_factor`` that the class takes."""

    shown: tuple[str, ...] = ()
    """Options that ``print(model)`` shows beside the geometry."""

    def __init__(
        self, in_channels: int, scale_factor: int = 2, *, guide_channels: int | None = None
    ) -> None:
        super().__init__()
        check_positive('in_channels', in_channels)
        if guide_channels is None:
            guide_channels = in_channels
        check_positive('guide_channels', guide_channels)
        self.in_channels = in_channels
        self.guide_channels = guide_channels
        self.scale_factor = check_scale_factor(scale_factor)
        if self.only_doubles and scale_factor != 2:
            name = type(self).__name__
            raise ValueError(f'scale_factor must be 2 for {name}, got {scale_factor}')

    def init_weights(self) -> None:
        """Fill the parameters as published.

        Constructors call this. mmengine calls it again after a neck or a head has initialised its
        own convolutions, so that their scheme does not stay in an upsampler.
        """

    def forward(
        self,
        x: Tensor,
        guide: Tensor | None = None,
        size: tuple[int, int] | None = None,
        convolution: nn.Conv2d | None = None,
    ) -> Tensor:
        """Upsample a feature map.

        Args:
            x (Tensor): Feature ``(N, C, H, W)``, floating point, any strides.
            guide (Tensor, optional): Finer feature ``(N, Cg, h', w')``; read by guided
                upsamplers, ignored by the others.
            size (tuple[int, int], optional): Wanted ``(h', w')`` with ``s(H-1) < h' <= sH`` and
                the same for the width. The map of ``sH x sW`` is *cut*, never stretched: this is
                the geometry that stride-2 convolutions leave in a pyramid of odd sizes.
                Defaults to ``(sH, sW)``.
            convolution (nn.Conv2d, optional): A 1x1 convolution that follows. An upsampler that
                is linear in ``x`` may apply it first, where there are fewer pixels. Defaults to
                None.

        Returns:
            Tensor: ``(N, C, h', w')`` in the dtype of ``x``, or with the channels and the dtype of
            the convolution's result.

        Raises:
            ValueError: If a shape does not fit, a guided upsampler gets no guide, or the
                convolution is not 1x1.
            TypeError: If ``x`` is not a floating-point tensor, or ``size`` not a pair of integers.
        """
        run = self.upsample
        if convolution is not None:
            if convolution.kernel_size != (1, 1) or convolution.groups != 1:
                raise ValueError(f'convolution must be 1x1 in one group, got {convolution}')
            run = partial(self.upsample_and_convolve, convolution)
        return self._run_checked(run, x, guide, size)

    def fuse(
        self, x: Tensor, guide: Tensor, size: tuple[int, int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Upsample ``x`` and give the guide to join it with; most types return that unchanged.

        Args:
            x (Tensor): As for :meth:`forward`, like ``size``.
            guide (Tensor): Finer feature ``(N, Cg, h', w')``.
            size (tuple[int, int], optional): Size of the guide where it is not ``(sH, sW)``.

        Returns:
            tuple[Tensor, Tensor]: ``x`` upsampled, ``(N, C, h', w')``, and the guide.
        """
        return self(x, guide, size), guide

    def _run_checked(
        self,
        run: Callable[[Tensor, Tensor | None, tuple[int, int]], Tensor],
        x: Tensor,
        guide: Tensor | None,
        size: tuple[int, int] | None,
    ) -> Tensor:
        """Check the input, extend the guide to the whole multiple, and call ``run``."""
        check_feature('x', x, self.in_channels)
        if size is not None:
            _check_pair(size)
        size = self.output_size(x, size)
        guide = self._check_guide(x, guide, size) if self.guided else None
        if not torch.jit.is_tracing() and x.shape[0] == 0:
            # Kernels, and pixel_shuffle in its backward pass, refuse an empty batch. So one image
            # of zeros is upsampled and dropped, which keeps every parameter in the graph.
            guide = None if guide is None else append_zeros(guide)
            with _frozen_statistics(self):
                return run(append_zeros(x), guide, size)[:0]
        return run(x, guide, size)

    def output_size(self, x: Tensor, size: tuple[int, int] | None) -> tuple[int, int]:
        """Check ``size`` against what this upsampler can reach from ``x``; fill in the default."""
        return resolve_size(x, self.scale_factor, size)

    def upsample(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        """Upsample checked input to ``size``; subclasses implement this.

        Args:
            x (Tensor): ``(N, C, H, W)``.
            guide (Tensor, optional): ``(N, Cg, sH, sW)``, already extended to the whole multiple;
                None where :attr:`guided` is false.
            size (tuple[int, int]): Height and width of the result.

        Returns:
            Tensor: ``(N, C, *size)``.
        """
        raise NotImplementedError

    def upsample_and_convolve(
        self, convolution: nn.Conv2d, x: Tensor, guide: Tensor | None, size: tuple[int, int]
    ) -> Tensor:
        """Upsample checked input and apply a 1x1 convolution, in whatever order costs less."""
        return convolution(self.upsample(x, guide, size))

    def macs(self, height: int, width: int) -> int:
        """Multiply-accumulates that upsampling one image costs; subclasses implement this.

        One is counted per weight that a convolution applies to a value, per tap of a reassembly
        or an interpolation, and per product of two computed values (a gate, an index map, a
        dynamic scope). Sums, biases, normalisation, pooling, activations and softmax count
        nothing, as in the published tables.

        Args:
            height (int): Height of the feature to upsample, in pixels.
            width (int): Its width.

        Returns:
            int: The count for the whole output of ``sH x sW``.
        """
        raise NotImplementedError

    def _check_guide(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        if guide is None:
            raise ValueError(
                f'{type(self).__name__} is guided: pass guide, the (N, {self.guide_channels}, '
                f'{size[0]}, {size[1]}) feature that x is upsampled towards; got None'
            )
        check_feature('guide', guide, self.guide_channels)
        height, width = (x.shape[-2] * self.scale_factor, x.shape[-1] * self.scale_factor)
        if only_plain_operators():  # without a comparison, which would be frozen into the graph
            missing = self.scale_factor - 1
            guide = F.pad(guide, (0, missing, 0, missing), mode='replicate')
            return guide[..., :height, :width]
        if tuple(guide.shape[-2:]) != tuple(size) or guide.shape[0] != x.shape[0]:
            raise ValueError(
                f'guide must be of batch {x.shape[0]} and spatial size {tuple(size)}, '
                f'got shape {tuple(guide.shape)}'
            )
        if (height, width) != tuple(size):
            # Upsampling needs a guide of the full sH x sW, although the result is cut to ``size``.
            # The missing rows and columns repeat the last ones of the guide.
            guide = F.pad(guide, (0, width - size[1], 0, height - size[0]), mode='replicate')
        return guide

    def extra_repr(self) -> str:
        """Show the geometry and the options of :attr:`shown` in ``print(model)``."""
        names = ('scale_factor', *('guide_channels',) * self.guided, *self.shown)
        options = (f'{name}={getattr(self, name)!r}' for name in names)
        return ', '.join((str(self.in_channels), *options))

    def _need_equal_channels(self, option: str) -> None:
        """Raise ValueError unless the guide has as many channels as ``x``, as an option needs."""
        if self.guide_channels != self.in_channels:
            raise ValueError(
                f'{option} needs guide_channels equal to in_channels={self.in_channels}, '
                f'got {self.guide_channels}'
            )


def check_flags(**flags: bool) -> None:
    """Raise TypeError unless all are bools: a string from a config would count as True."""
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise TypeError(f'{name} must be True or False, got {value!r}')


def draw_weights(module: nn.Module, draw: Callable[[Tensor], Any]) -> None:
    """Fill the weights of all convolutions by ``draw``, their biases by zeros.

    Normalisation layers start as identity.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            draw(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.GroupNorm | nn.LayerNorm):
            layer.reset_parameters()


def _check_pair(size: Any) -> None:
    """Raise unless ``size`` is a pair of integers, or of what tracing has in their place."""
    numbers = isinstance(size, Sequence) and not isinstance(size, str)
    if not numbers or any(isinstance(side, float | str | bool) for side in size):
        raise TypeError(f'size must be two integers (height, width), got {size!r}')
    if len(size) != 2:
        raise ValueError(f'size must be (height, width), got {tuple(size)}')


@contextmanager
def _frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Let batch norm use its running statistics, and leave them as they are.

    SyncBatchNorm is left out: all ranks must take part in its exchange.
    """
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d) and m.training]
    for norm in norms:
        norm.training = False
    try:
        yield
    finally:
        for norm in norms:
            norm.training = True


def append_zeros(x: Tensor) -> Tensor:
    """Add one image of zeros to a batch."""
    return torch.cat((x, x.new_zeros(1, *x.shape[1:])))


@dataclass(frozen=True)
class _Entry:
    """What a type name stands for: a class, and the keyword arguments that the name implies."""

    cls: type[Upsampler]
    defaults: dict[str, Any] = field(default_factory=dict)

    def build(self, name: str, kwargs: Mapping[str, Any]) -> Upsampler:
        accepted = list(constructor_options(self.cls))
        unknown = sorted(set(kwargs) - set(accepted))
        if unknown:
            raise TypeError(
                f'upsampler {name!r} does not take {unknown}; it takes {accepted}. '
                'Where a base config left them behind, replace its upsample_cfg with _delete_=True'
            )
        return self.cls(**{**self.defaults, **kwargs})


_UPSAMPLERS: dict[str, _Entry] = {}


def register_upsampler(name: str, **defaults: Any) -> Callable[[type[Upsampler]], type[Upsampler]]:
    """Make a class buildable by ``name``; a class may have several names.

    Args:
        name (str): The ``type`` in an ``upsample_cfg``.
        **defaults: Constructor arguments that the name implies; a config may override them.

    Returns:
        Callable: A class decorator.

    Raises:
        ValueError: If the name is taken by another class.
        TypeError: If the class is not an :class:`Upsampler`.
    """

    def register(cls: type[Upsampler]) -> type[Upsampler]:
        if not (inspect.isclass(cls) and issubclass(cls, Upsampler)):
            raise TypeError(f'only subclasses of Upsampler can be registered, got {cls!r}')
        if name in _UPSAMPLERS and _UPSAMPLERS[name].cls is not cls:
            raise ValueError(f'name {name!r} is taken by {_UPSAMPLERS[name].cls.__name__}')
        _UPSAMPLERS[name] = _Entry(cls, defaults)
        return cls

    return register


def constructor_options(cls: type[Upsampler]) -> dict[str, inspect.Parameter]:
    """What a constructor takes, by name; where it has ``**kwargs``, its parent's options too."""
    found: dict[str, inspect.Parameter] = {}
    for parent in cls.__mro__:
        own = inspect.signature(parent.__init__).parameters
        found = {**own, **found}
        if not any(option.kind is option.VAR_KEYWORD for option in own.values()):
            break
    return {name: p for name, p in found.items() if name != 'self' and p.kind is not p.VAR_KEYWORD}


def upsampler_names() -> list[str]:
    """Names that :func:`build_upsampler` knows, sorted."""
    return sorted(_UPSAMPLERS)


def upsampler_factory(name: str) -> Callable[..., Upsampler]:
    """A plain function that builds ``name`` from keyword arguments, for other registries."""

    def factory(in_channels: int, **kwargs: Any) -> Upsampler:
        return _UPSAMPLERS[name].build(name, {'in_channels': in_channels, **kwargs})

    factory.__name__ = factory.__qualname__ = name
    factory.__doc__ = f'Build the upsampler {name!r}; see {_UPSAMPLERS[name].cls.__name__}.'
    return factory


def build_upsampler(
    cfg: str | Mapping[str, Any],
    in_channels: int,
    scale_factor: int = 2,
    guide_channels: int | None = None,
) -> Upsampler:
    """Build an upsampler from an ``upsample_cfg``, as every neck and head does.

    Args:
        cfg (str or dict): A type name, or a dict with ``type`` and the options of that
            upsampler. A dict without ``type`` but with ``mode`` is the ``upsample_cfg`` of the
            stock FPNs, arguments of ``F.interpolate``.
        in_channels (int): Channels of the feature to upsample.
        scale_factor (int): Ratio of the two resolutions. Defaults to 2.
        guide_channels (int, optional): Channels of the guide, for guided upsamplers.
            Defaults to ``in_channels``.

    Returns:
        Upsampler: The module, initialised.

    Raises:
        TypeError: If ``cfg`` is neither a name nor a dict, its ``type`` is neither a name nor a
            class, or it carries unknown keys.
        ValueError: If the name is unknown, or ``cfg`` contradicts ``scale_factor``.
    """
    if isinstance(cfg, str):
        cfg = {'type': cfg}
    if not isinstance(cfg, Mapping):
        raise TypeError(f'upsample_cfg must be a type name or a dict, got {type(cfg).__name__}')
    options = dict(cfg)
    name = options.pop('type', None)
    if name is None and 'mode' in options:
        name = 'interpolate'
    if inspect.isclass(name) and issubclass(name, Upsampler):
        entry, name = _Entry(name), name.__name__
    elif name is not None and not isinstance(name, str):
        raise TypeError(
            f'type in upsample_cfg must be a name or a subclass of Upsampler, got {name!r}'
        )
    elif name in _UPSAMPLERS:
        entry = _UPSAMPLERS[name]
    else:
        raise ValueError(
            f'unknown upsampler type {name!r}; known types: {", ".join(upsampler_names())}. '
            'If it is your own, did you set custom_imports to the module that registers it?'
        )
    given = options.setdefault('scale_factor', scale_factor)
    if given != scale_factor:
        raise ValueError(
            f'upsample_cfg sets scale_factor={given}, but the network needs {scale_factor} here'
        )
    if guide_channels is not None and entry.cls.guided:
        options.setdefault('guide_channels', guide_channels)
    return entry.build(name, {'in_channels': in_channels, **options})
