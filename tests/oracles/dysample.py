"""DySample's sampling from its description, in float64 loops."""

from __future__ import annotations

import numpy as np
import torch


def random_case(
    device='cpu',
    dtype=torch.float32,
    *,
    batch=1,
    share=2,
    groups=2,
    height=4,
    width=5,
    cut=(0, 0),
    style='lp',
    scale_factor=2,
    dynamic=False,
    init='bilinear',
    reach=2.0,
    x_format=torch.contiguous_format,
    offset_format=torch.contiguous_format,
    seed=0,
):
    """Random arguments of `dysample`, and an upstream gradient for its result."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape, scale=1.0, like=dtype, memory_format=torch.contiguous_format):
        values = torch.randn(shape, generator=generator) * scale
        return values.to(device, like, memory_format=memory_format)

    s = scale_factor
    size = (s * height - cut[0] % s, s * width - cut[1] % s)
    shape = (
        (2 * groups * s * s, height, width)
        if style == 'lp'
        else (2 * groups, s * height, s * width)
    )
    tensors = dict(
        x=draw(batch, share * groups, height, width, memory_format=x_format),
        offset=draw(batch, *shape, scale=reach, like=torch.float32, memory_format=offset_format),
        scope=draw(batch, *shape, like=torch.float32) if dynamic else None,
    )
    options = dict(
        scale_factor=s,
        groups=groups,
        style=style,
        scope_factor=0.5 if dynamic else 0.25,
        init=init,
        size=size,
    )
    grad = draw(batch, share * groups, *size, memory_format=x_format)
    return tensors, options, grad


def dysample_loops(
    x, offset, scope, *, scale_factor, groups, style, scope_factor, init, size, grad=None
):
    """Sample, and differentiate by hand, one output pixel and group at a time.

    A clamped coordinate, also one exactly on the limit, passes no gradient to its displacement.

    Returns the result, or with ``grad`` a dict of ``out x offset scope``; all float64 tensors.
    """
    x, offset, grad = (
        None if t is None else t.detach().double().numpy() for t in (x, offset, grad)
    )
    scope = None if scope is None else scope.detach().double().numpy()
    s, (n, channels, height, width) = scale_factor, x.shape
    share = channels // groups
    out = np.zeros((n, channels, *size))
    grads = {'x': np.zeros_like(x), 'offset': np.zeros_like(offset)}
    grads['scope'] = None if scope is None else np.zeros_like(scope)
    for b, g, Y, X in np.ndindex(n, groups, *size):
        parent = (X // s, Y // s)
        sub = (X % s, Y % s)
        lows, highs, weights, places, gates, frees = [], [], [], [], [], []
        for axis, length in ((0, width), (1, height)):
            if style == 'lp':
                channel = ((axis * groups + g) * s + sub[1]) * s + sub[0]
                place = (b, channel, parent[1], parent[0])
            else:
                place = (b, axis * groups + g, Y, X)
            gate = 1.0 if scope is None else 1 / (1 + np.exp(-scope[place]))
            start = 0.0 if init == 'nearest' else (sub[axis] - (s - 1) / 2) / s
            position = parent[axis] + start + scope_factor * gate * offset[place]
            frees.append(not (position <= 0 or position >= length - 1))
            position = np.clip(position, 0, length - 1)
            low = 0 if np.isnan(position) else min(int(np.floor(position)), length - 1)
            lows.append(low)
            highs.append(min(low + 1, length - 1))
            weights.append(position - low)
            places.append(place)
            gates.append(gate)
        (x0, y0), (x1, y1), (u, v) = lows, highs, weights
        block = slice(g * share, (g + 1) * share)
        nw, ne, sw, se = (
            x[b, block, y0, x0],
            x[b, block, y0, x1],
            x[b, block, y1, x0],
            x[b, block, y1, x1],
        )
        out[b, block, Y, X] = (nw * (1 - u) + ne * u) * (1 - v) + (sw * (1 - u) + se * u) * v
        if grad is None:
            continue
        upstream = grad[b, block, Y, X]
        for yy, xx, weight in (
            (y0, x0, (1 - v) * (1 - u)),
            (y0, x1, (1 - v) * u),
            (y1, x0, v * (1 - u)),
            (y1, x1, v * u),
        ):
            grads['x'][b, block, yy, xx] += upstream * weight
        slopes = (
            (upstream * ((ne - nw) * (1 - v) + (se - sw) * v)).sum(),
            (upstream * ((sw - nw) * (1 - u) + (se - ne) * u)).sum(),
        )
        for slope, place, gate, free in zip(slopes, places, gates, frees, strict=True):
            if free:
                grads['offset'][place] = slope * scope_factor * gate
                if scope is not None:
                    moved = slope * scope_factor * offset[place]
                    grads['scope'][place] = moved * gate * (1 - gate)
    out = torch.from_numpy(out)
    if grad is None:
        return out
    return {'out': out, **{k: None if v is None else torch.from_numpy(v) for k, v in grads.items()}}
