"""Depth estimation by loops over pixels and tokens, in float64, straight from the formulas."""

from __future__ import annotations

import math

import numpy as np


def errors(truth, prediction) -> dict[str, float]:
    """The nine numbers of one image, from plain lists of depths."""
    pairs = [(float(t), float(p)) for t, p in zip(truth, prediction, strict=True)]
    logs = [math.log(p) - math.log(t) for t, p in pairs]
    mean_log = sum(logs) / len(logs)

    def mean(values):
        return sum(values) / len(pairs)

    result = {f'd{k}': mean(max(t / p, p / t) < 1.25**k for t, p in pairs) for k in (1, 2, 3)}
    result['abs_rel'] = mean(abs(p - t) / t for t, p in pairs)
    result['sq_rel'] = mean((p - t) ** 2 / t for t, p in pairs)
    result['rmse'] = math.sqrt(mean((p - t) ** 2 for t, p in pairs))
    result['rmse_log'] = math.sqrt(mean(gap**2 for gap in logs))
    result['log10'] = mean(abs(gap) / math.log(10) for gap in logs)
    result['silog'] = 100 * math.sqrt(mean((gap - mean_log) ** 2 for gap in logs))
    return result


def sig_loss(prediction, target, max_depth=math.inf, shift=1e-3, variance=1.0) -> float:
    """``sqrt(variance * var + 0.15 mean²)`` of the logarithmic gap over valid pixels.

    ``var`` is the sample variance, and ``shift`` is added to both depths, in metres.
    """
    gaps = [
        math.log(p + shift) - math.log(t + shift)
        for p, t in zip(np.ravel(prediction), np.ravel(target), strict=True)
        if math.isfinite(t) and 0 < t <= max_depth
    ]
    mean = sum(gaps) / len(gaps)
    squares = sum((gap - mean) ** 2 for gap in gaps) / (len(gaps) - 1)
    return math.sqrt(variance * squares + 0.15 * mean**2)


def conv(x, weight, bias=None) -> np.ndarray:
    """A convolution ``(C, H, W)`` with stride 1 that keeps the size, tap by tap."""
    _, height, width = x.shape
    side = weight.shape[-1]
    padded = np.pad(x, ((0, 0), (side // 2,) * 2, (side // 2,) * 2))
    out = np.zeros((len(weight), height, width))
    for dy in range(side):
        for dx in range(side):
            window = padded[:, dy : dy + height, dx : dx + width]
            out += np.tensordot(weight[:, :, dy, dx], window, axes=1)
    return out if bias is None else out + bias[:, None, None]


def leaky_relu(x, slope=0.01) -> np.ndarray:
    return np.where(x > 0, x, slope * x)


def stretch(x, size) -> np.ndarray:
    """Bilinear interpolation of ``(C, H, W)`` that keeps the corners, pixel by pixel."""
    out = np.zeros((len(x), *size))
    for row in range(size[0]):
        for column in range(size[1]):
            y = row * (x.shape[1] - 1) / max(size[0] - 1, 1)
            z = column * (x.shape[2] - 1) / max(size[1] - 1, 1)
            out[:, row, column] = read(x, y, z)
    return out


def read(x, row: float, column: float) -> np.ndarray:
    """Read ``(C, H, W)`` between its pixels; outside is zero."""
    top, left = math.floor(row), math.floor(column)
    value = np.zeros(len(x))
    for i in (top, top + 1):
        for j in (left, left + 1):
            if 0 <= i < x.shape[1] and 0 <= j < x.shape[2]:
                value += (1 - abs(row - i)) * (1 - abs(column - j)) * x[:, i, j]
    return value


def decode(state: dict[str, np.ndarray], levels) -> np.ndarray:
    """The DenseDepth decoder with bilinear upsampling, from its published parameter names.

    Args:
        state: The head's parameters by name.
        levels: Maps ``(C, H, W)``, finest first.

    Returns:
        Depth ``(1, H, W)`` before any bound but the direct regression's ``relu(y) + 0.001``.
    """

    def apply(name, x):
        return conv(x, state[f'{name}.weight'], state[f'{name}.bias'])

    *skips, coarsest = levels
    x = apply('conv_list.0.conv', coarsest)
    for step, skip in enumerate(reversed(skips), start=1):
        x = np.concatenate((stretch(x, skip.shape[1:]), skip))
        x = leaky_relu(apply(f'conv_list.{step}.convA.conv', x))
        x = leaky_relu(apply(f'conv_list.{step}.convB.conv', x))
    return np.maximum(apply('conv_depth', x), 0) + 1e-3


def deformable_attention(state, query, value_maps, references, heads, points) -> np.ndarray:
    """Deformable attention of each query in turn (arXiv 2010.04159, Eq. 3), plus the query.

    Args:
        state: Parameters of the attention by name.
        query: ``(Q, C)`` tokens without their positions, and their positions ``(Q, C)``.
        value_maps: One ``(C, H, W)`` map per level.
        references: ``(Q, 2)``, x before y, in fractions of a map.
        heads: Number of heads.
        points: Points per level.
    """

    def linear(name, x):
        return x @ state[f'{name}.weight'].T + state[f'{name}.bias']

    tokens, positions = query
    values = [
        conv(x, state['value_proj.weight'][:, :, None, None], state['value_proj.bias'])
        for x in value_maps
    ]
    width = tokens.shape[1] // heads
    out = np.zeros_like(tokens)
    for q, (token, position) in enumerate(zip(tokens, positions, strict=True)):
        offsets = linear('sampling_offsets', token + position)
        offsets = offsets.reshape(heads, len(values), points, 2)
        scores = linear('attention_weights', token + position).reshape(heads, -1)
        gathered = np.zeros(tokens.shape[1])
        for head in range(heads):
            share = np.exp(scores[head] - scores[head].max())
            share = (share / share.sum()).reshape(len(values), points)
            channels = slice(head * width, (head + 1) * width)
            for level, value in enumerate(values):
                for point in range(points):
                    dx, dy = offsets[head, level, point]
                    column = references[q][0] * value.shape[2] + dx - 0.5
                    row = references[q][1] * value.shape[1] + dy - 0.5
                    gathered[channels] += share[level, point] * read(value[channels], row, column)
        out[q] = linear('output_proj', gathered)
    return out + tokens


def neck(state, inputs, heads: int, points: int) -> list[np.ndarray]:
    """HAHI with batch normalisation in evaluation, from its published parameter names."""

    def block(name, x):
        x = conv(x, state[f'{name}.conv.weight'])
        mean, var = state[f'{name}.bn.running_mean'], state[f'{name}.bn.running_var']
        scale = state[f'{name}.bn.weight'] / np.sqrt(var + 1e-5)
        shift = state[f'{name}.bn.bias'] - mean * scale
        return np.maximum(x * scale[:, None, None] + shift[:, None, None], 0)

    def part(prefix):
        return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}

    def tokens(x):
        return x.reshape(len(x), -1).T

    branch, *levels = [block(f'lateral_convs.{i}', x) for i, x in enumerate(inputs)]
    projected = [block(f'trans_proj.{i}', x) for i, x in enumerate(levels)]
    positions, references = [], []
    for i, x in enumerate(projected):
        _, height, width = x.shape
        positions.append(sine(x.shape) + state['level_embed'][i])
        references += [
            ((c + 0.5) / width, (r + 0.5) / height) for r in range(height) for c in range(width)
        ]
    everything = np.concatenate([tokens(x) for x in projected])
    query = everything, np.concatenate(positions)
    attended = deformable_attention(part('self_attn.'), query, projected, references, heads, points)
    sizes = np.cumsum([x[0].size for x in projected])[:-1]
    memory = [
        t.T.reshape(x.shape) for t, x in zip(np.split(attended, sizes), projected, strict=True)
    ]
    query = block('conv_proj.0', branch)
    position = sine(query.shape)
    reference = position @ state['reference_points.weight'].T + state['reference_points.bias']
    gathered = deformable_attention(
        part('multi_att.'),
        (tokens(query), position),
        memory,
        1 / (1 + np.exp(-reference)),
        heads,
        points,
    )
    outs = [block('conv_fusion.0', np.concatenate((gathered.T.reshape(query.shape), branch)))]
    for i, (x, m) in enumerate(zip(levels, memory, strict=True)):
        outs.append(block(f'trans_fusion.{i}', np.concatenate((x, m))))
    return outs


def sine(shape) -> np.ndarray:
    """Sine encodings ``(H * W, C)`` of rows and columns counted from 1."""
    channels, height, width = shape
    half = channels // 2
    out = np.zeros((height, width, channels))
    for row in range(height):
        for column in range(width):
            for start, place in ((0, row + 1), (half, column + 1)):
                for i in range(half):
                    angle = place / 10000 ** (2 * (i // 2) / half)
                    out[row, column, start + i] = math.cos(angle) if i % 2 else math.sin(angle)
    return out.reshape(-1, channels)
