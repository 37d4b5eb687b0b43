"""MobileNetV2 (arXiv 1801.04381, Table 2) by hand, in float64, with torchvision's names."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: Expansion, channels, blocks and stride of each layer.
LAYERS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def random_weights(seed: int = 0) -> dict[str, Tensor]:
    """A weight for each name in torchvision's file; no batch statistic is that of a fresh net."""
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, Tensor] = {}

    def unit(conv: str, norm: str, *shape: int) -> None:
        fan_in = shape[1] * shape[2] * shape[3]
        weights[f'{conv}.weight'] = torch.randn(shape, generator=generator) * fan_in**-0.5
        for name, low in (('weight', 0.5), ('bias', -0.5), ('running_mean', -0.5)):
            weights[f'{norm}.{name}'] = torch.rand(shape[0], generator=generator) + low
        weights[f'{norm}.running_var'] = torch.rand(shape[0], generator=generator) + 0.5
        weights[f'{norm}.num_batches_tracked'] = torch.tensor(7)

    unit('features.0.0', 'features.0.1', 32, 3, 3, 3)
    channels, index = 32, 1
    for expansion, out, blocks, _ in LAYERS:
        for _ in range(blocks):
            name, hidden, step = f'features.{index}.conv', channels * expansion, 0
            if expansion != 1:
                unit(f'{name}.0.0', f'{name}.0.1', hidden, channels, 1, 1)
                step = 1
            unit(f'{name}.{step}.0', f'{name}.{step}.1', hidden, 1, 3, 3)
            unit(f'{name}.{step + 1}', f'{name}.{step + 2}', out, hidden, 1, 1)
            channels, index = out, index + 1
    unit('features.18.0', 'features.18.1', 1280, 320, 1, 1)
    weights['classifier.1.weight'] = torch.randn(1000, 1280, generator=generator)
    weights['classifier.1.bias'] = torch.randn(1000, generator=generator)
    return weights


def features(image: Tensor, weights: dict[str, Tensor]) -> list[Tensor]:
    """The outputs of layers 2, 3, 5 and 7 (strides 4 to 32), and of the last convolution."""
    weights = {name: value.double() for name, value in weights.items()}

    def unit(x: Tensor, conv: str, norm: str, stride: int = 1, clip: bool = True) -> Tensor:
        weight = weights[f'{conv}.weight']
        groups = x.shape[1] // weight.shape[1]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=groups)
        mean, var = weights[f'{norm}.running_mean'], weights[f'{norm}.running_var']
        scale = weights[f'{norm}.weight'] / (var + 1e-5).sqrt()
        x = (x - mean[:, None, None]) * scale[:, None, None]
        x = x + weights[f'{norm}.bias'][:, None, None]
        return x.clamp(0, 6) if clip else x

    x = unit(image.double(), 'features.0.0', 'features.0.1', stride=2)
    outputs, index = [], 1
    for number, (expansion, out, blocks, first_stride) in enumerate(LAYERS, start=1):
        for block in range(blocks):
            name, stride, y, step = f'features.{index}.conv', 1 if block else first_stride, x, 0
            if expansion != 1:
                y, step = unit(y, f'{name}.0.0', f'{name}.0.1'), 1
            y = unit(y, f'{name}.{step}.0', f'{name}.{step}.1', stride)
            y = unit(y, f'{name}.{step + 1}', f'{name}.{step + 2}', clip=False)
            x = x + y if stride == 1 and x.shape[1] == out else y
            index += 1
        if number in (2, 3, 5, 7):
            outputs.append(x)
    return [*outputs, unit(x, 'features.18.0', 'features.18.1')]
