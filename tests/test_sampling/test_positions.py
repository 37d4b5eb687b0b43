"""Where DySample samples: positions, statistics, places in a picture, and what is drawn."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import BIAS, fixed_layer

from mmdysample import DySample
from mmdysample.sampling.positions import (
    AxisMap,
    PlacedSampling,
    Sampling,
    check_points,
    find_dysample,
    find_stride,
    layer_to_input,
    watch_sampling,
)

AS_IT_IS = AxisMap((1, 1), (0, 0))


def positions_by_loops(layer: DySample, x: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    """Initial position plus scope times offset, one output pixel at a time, in float64."""
    s, groups, x = layer.scale_factor, layer.groups, x.numpy()
    n, channels, *_ = x.shape

    def project(conv, b, axis, g, row, column):
        parent, sub = (row // s, column // s), (row % s, column % s)
        weight = conv.weight.detach().numpy()[:, :, 0, 0]
        bias = 0 if conv.bias is None else conv.bias.detach().numpy()
        if layer.style == 'lp':
            features = x[b, :, parent[0], parent[1]]
            channel = ((axis * groups + g) * s + sub[0]) * s + sub[1]
        else:
            picked = [c * s * s + sub[0] * s + sub[1] for c in range(channels // s**2)]
            features = x[b, picked, parent[0], parent[1]]
            channel = axis * groups + g
        return (weight @ features + bias)[channel]

    positions = np.zeros((n, groups, 2, *size))
    for b, g, axis, row, column in np.ndindex(*positions.shape):
        pixel = (column, row)[axis]
        start = (pixel + 0.5) / s - 0.5 if layer.init == 'bilinear' else pixel // s
        scope = layer.scope_factor
        if layer.dyscope:
            scope /= 1 + np.exp(-project(layer.scope, b, axis, g, row, column))
        offset = project(layer.offset, b, axis, g, row, column)
        positions[b, g, axis, row, column] = start + scope * offset
    return positions


@pytest.mark.parametrize(
    ('style', 'dyscope', 'init', 'scale_factor', 'cut'),
    [
        ('lp', False, 'bilinear', 2, (0, 0)),
        ('lp', True, 'nearest', 2, (1, 0)),
        ('lp', True, 'bilinear', 3, (1, 2)),
        ('pl', False, 'bilinear', 3, (0, 1)),
        ('pl', True, 'bilinear', 2, (1, 1)),
    ],
)
def test_positions_equal_float64_loops(style, dyscope, init, scale_factor, cut):
    layer = DySample(
        2 * scale_factor**2, scale_factor, style=style, groups=2, dyscope=dyscope, init=init
    ).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, layer.in_channels, 3, 4, dtype=torch.float64)
    size = (scale_factor * 3 - cut[0], scale_factor * 4 - cut[1])
    position, offset = layer.sampling_positions(x, size)
    expected = torch.from_numpy(positions_by_loops(layer, x, size))
    torch.testing.assert_close(position, expected, atol=1e-12, rtol=0)
    still = DySample(layer.in_channels, scale_factor, groups=2, init=init).double()
    torch.nn.init.zeros_(still.offset.weight)
    initial = torch.from_numpy(positions_by_loops(still, x, size))
    torch.testing.assert_close(position - offset, initial, atol=1e-12, rtol=0)


@pytest.mark.parametrize('style', ['lp', 'pl'])
def test_forward_reads_where_the_positions_say(style):
    """A feature that holds its own pixel's place comes out as the place that was read."""
    layer = DySample(8, style=style, groups=2, dyscope=True)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    rows, columns = torch.meshgrid(torch.arange(5.0), torch.arange(6.0), indexing='ij')
    x = torch.stack((columns, rows)).repeat(4, 1, 1)[None]
    read = layer(x, size=(9, 12)).view(1, 2, 2, 2, 9, 12)  # (N, G, pairs of channels, 2, h, w)
    position, offset = layer.sampling_positions(x, (9, 12))
    sampled = Sampling(position, offset, (5, 6), 2).sampled
    for pair in (0, 1):
        torch.testing.assert_close(read[:, :, pair], sampled, atol=1e-5, rtol=0)


@pytest.mark.parametrize('style', ['lp', 'pl'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_offsets_of_a_known_layer_are_in_input_pixels(style, dtype):
    offsets = (BIAS, (-1.0, 2.0))
    layer = fixed_layer(*offsets, style=style).to(dtype)
    position, offset = layer.sampling_positions(torch.randn(1, 4, 3, 5).to(dtype))
    assert position.dtype == offset.dtype == torch.float32
    for group, (x, y) in enumerate(offsets):
        assert (offset[0, group, 0] == x).all() and (offset[0, group, 1] == y).all()
    assert position[0, 0, :, 0, 0].tolist() == [-0.25 + 0.5, -0.25 - 0.25]
    assert position[0, 1, :, 5, 9].tolist() == [4.25 - 1, 2.25 + 2]


def test_positions_refuse_what_forward_refuses():
    layer = DySample(8)
    with pytest.raises(ValueError, match='8'):
        layer.sampling_positions(torch.zeros(1, 4, 3, 3))
    with pytest.raises(ValueError, match='size'):
        layer.sampling_positions(torch.zeros(1, 8, 3, 3), (7, 6))


def sampling_of(positions, offsets, in_size) -> Sampling:
    """One picture, one group, one row of output pixels; pairs (x, y)."""
    position, offset = (
        torch.tensor(pairs).T.reshape(1, 1, 2, 1, -1) for pairs in (positions, offsets)
    )
    return Sampling(position, offset, in_size, 2)


def test_statistics_by_hand():
    # A map 4 high and 6 wide: its edges are at -0.5, 3.5 and 5.5. Three of eight are beyond them,
    # those on them are not. Lengths: 5, 0, 0.5, 0.5, 0.625, 0, 0, 0.375.
    sampling = sampling_of(
        [(-0.51, 0), (-0.5, 0), (5.5, 3.5), (5.51, 0), (0, 3.6), (0, -0.5), (2, 2), (5, 3)],
        [(3, 4), (0, 0), (0.5, 0), (0, -0.5), (-0.375, 0.5), (0, 0), (0, 0), (0, 0.375)],
        (4, 6),
    )
    length, beyond, outside = sampling.statistics().tolist()
    assert (length, beyond, outside) == (7 / 8, 2 / 8, 3 / 8)


def test_sampled_positions_are_those_in_the_map():
    sampling = sampling_of([(-3, 1), (9, 9), (2.5, -0.1)], [(0, 0)] * 3, (4, 6))
    assert sampling.sampled[0, 0, :, 0].T.tolist() == [[0, 1], [5, 3], [2.5, 0]]


@pytest.mark.parametrize('keyword', [False, True])
def test_watching_sees_x_and_size_and_leaves_no_trace(keyword):
    layer = fixed_layer()
    model = torch.nn.Sequential(torch.nn.Identity(), layer)
    assert find_dysample(model) == {'1': layer}
    x = torch.randn(2, 4, 3, 5, requires_grad=True)
    expected = layer(x, None, (5, 9))
    state = torch.get_rng_state()
    seen = []
    handles = watch_sampling({'1': layer}, lambda name, sampling: seen.append((name, sampling)))
    output = layer(x, size=(5, 9)) if keyword else layer(x, None, (5, 9))
    layer(x[:0])
    assert torch.equal(output, expected) and torch.equal(torch.get_rng_state(), state)
    ((name, sampling),) = seen
    assert name == '1' and sampling.in_size == (3, 5)
    assert sampling.position.shape == (2, 1, 2, 5, 9)
    assert not sampling.position.requires_grad and not sampling.offset.requires_grad
    for handle in handles:
        handle.remove()
    layer(x)
    assert len(seen) == 1


def test_watching_changes_no_gradient_under_autocast():
    layer, x = DySample(4, groups=2), torch.randn(1, 4, 4, 4)
    mix = torch.nn.Conv2d(4, 4, 1)

    def gradients(watched):
        handles = watch_sampling({'': layer}, lambda *_: None) if watched else []
        layer.zero_grad()
        mix.zero_grad()
        with torch.autocast('cpu', torch.bfloat16):
            layer(mix(x)).float().square().sum().backward()
        for handle in handles:
            handle.remove()
        return [p.grad.clone() for p in (*layer.parameters(), *mix.parameters())]

    plain, watched = gradients(False), gradients(True)
    assert all(grad.abs().sum() > 0 for grad in plain)
    assert all(torch.equal(a, b) for a, b in zip(plain, watched, strict=True))


@pytest.mark.parametrize(
    ('in_size', 'network_size', 'stride'),
    [
        ((8, 16), (64, 128), 8),
        ((13, 17), (100, 131), 8),  # rounded up, as strided convolutions do
        ((12, 16), (100, 131), 8),  # rounded down, as patch embeddings do
        ((32, 64), (32, 64), 1),
        ((16, 16), (224, 224), 14),
        ((2, 3), (64, 96), 32),
        ((14, 14), (64, 128), None),  # the map of a box
        ((8, 8), (64, 128), None),
        ((64, 128), (32, 64), None),
    ],
)
def test_stride(in_size, network_size, stride):
    assert find_stride(in_size, network_size) == stride


def test_axis_maps_chain_and_lead_back():
    first, second = AxisMap((2, -3), (1, 10)), AxisMap((0.5, 4), (-1, 0))
    places = np.array([[0, 0], [1, 2], [-5, 7.5]])
    chained = second.after(first)
    assert chained([1, 2]).tolist() == [0.5 * 3 - 1, 4 * 4 + 0]
    np.testing.assert_allclose(chained(places), second(first(places)))
    np.testing.assert_allclose(chained.inverse()(chained(places)), places)


def place(layer, in_size, picture_size, stride=8, to_picture=AS_IT_IS):
    """The sampling of a random feature by a layer of ``stride``."""
    position, offset = layer.sampling_positions(torch.randn(1, layer.in_channels, *in_size))
    sampling = Sampling(position.detach(), offset.detach(), in_size, layer.scale_factor)
    where = to_picture.after(layer_to_input(stride))
    return PlacedSampling('up', sampling, stride, where, picture_size)


#: A picture 100 wide and 60 high, halved, then padded to 64 x 32 for the network.
HALVED = AxisMap((2, 2), (0.5, 0.5))
PADDED = dict(in_size=(4, 8), picture_size=(60, 100), to_picture=HALVED)


def test_arrows_of_a_resized_and_padded_picture():
    placed = place(fixed_layer(BIAS, (-1.0, 0.0)), **PADDED)
    starts, ends = placed.arrows(np.array([[2, 3], [0, 0]]))
    # Row 2 and column 3 of the result start at x = 3.5 / 2 - 0.5 = 1.25 and y = 0.75 of the map:
    # 1.75 * 8 - 0.5 = 13.5 and 1.25 * 8 - 0.5 = 9.5 of the network's pixels, twice as far, with
    # half a pixel more, in the picture. An input pixel is 16 picture pixels.
    assert starts[0].tolist() == [[27.5, 19.5], [27.5, 19.5]]
    assert ends[0].tolist() == [[27.5 + 8, 19.5 - 4], [27.5 - 16, 19.5]]
    # The corner starts at (-0.25, -0.25); what leaves the map is moved onto its first pixel.
    assert starts[1, 0].tolist() == [3.5, 3.5]
    assert ends[1].tolist() == [[0.25 * 16 + 7.5, 7.5], [7.5, 7.5]]


def test_points_find_the_pixel_that_covers_them():
    placed = place(fixed_layer(), **PADDED)
    # An output pixel covers 8 x 8 picture pixels.
    points = np.array([[27.5, 19.5], [24, 16], [31, 23], [0, 0], [99, 59], [32, 23]])
    expected = [[2, 3], [2, 3], [2, 3], [0, 0], [7, 12], [2, 4]]
    assert placed.nearest_pixels(points).tolist() == expected


def test_points_in_a_mirrored_and_cropped_picture():
    # The network sees columns 40 to 103 of the picture, from right to left.
    placed = place(fixed_layer(), (4, 8), (32, 140), to_picture=AxisMap((-1, 1), (103, 0)))
    assert placed.nearest_pixels(np.array([[103, 0], [40, 31]])).tolist() == [[0, 0], [7, 15]]
    starts, ends = placed.arrows(np.array([[3, 5]]))
    assert (ends - starts).tolist() == [[[-0.5 * 8, -0.25 * 8]]]
    with pytest.raises(ValueError, match='20,5'):
        placed.nearest_pixels(np.array([[60, 5], [20, 5]]))


def test_points_outside_the_picture():
    check_points(np.array([[0, 0], [99, 59]]), (60, 100))
    for point in ([100, 5], [-1, 5], [5, 60], [5, -1]):
        with pytest.raises(ValueError, match=r'0 to 99.*0 to 59') as error:
            check_points(np.array([[1, 1], point]), (60, 100))
        assert f'{point[0]},{point[1]} is outside' in str(error.value)


def with_lengths(placed: PlacedSampling, lengths: np.ndarray) -> PlacedSampling:
    offset = torch.zeros(1, 1, 2, *lengths.shape)
    offset[0, 0, 0] = torch.from_numpy(lengths)
    sampling = Sampling(placed.sampling.initial + offset, offset, placed.sampling.in_size, 2)
    return replace(placed, sampling=sampling)


def test_strongest_pixels_keep_apart_and_out_of_the_padding():
    lengths = np.full((8, 16), 0.01)
    lengths[1, 2], lengths[1, 3], lengths[6, 9], lengths[4, 14] = 0.9, 0.8, 0.7, 5.0
    lengths[0, 12] = np.nan
    placed = with_lengths(place(fixed_layer(), **PADDED), lengths)
    chosen = placed.strongest_pixels(6).tolist()
    # Column 14 lies at x = 115.5, in the padding; (1, 3) is a neighbour of (1, 2).
    assert chosen[:2] == [[1, 2], [6, 9]]
    assert len(chosen) == 6 and [1, 3] not in chosen
    places = placed.out_to_picture(np.array(chosen)[:, ::-1])
    assert (places <= [99.5, 59.5]).all()
    least = min(np.linalg.norm(a - b) for a, b in itertools.combinations(places, 2))
    assert least >= 0.7 * np.sqrt(60 * 100 / 6)


def test_grid_covers_the_picture_evenly():
    chosen = place(fixed_layer(), **PADDED).grid_pixels(4).tolist()
    # 13 columns and 8 rows of the result lie over the picture: 4 and 3 points.
    assert chosen == [[r, c] for r in (1, 4, 6) for c in (1, 4, 8, 11)]


def colour_mask(drawn: np.ndarray, colour) -> np.ndarray:
    return (np.abs(drawn.astype(int) - np.round(255 * np.asarray(colour))) <= 3).all(axis=-1)


def test_drawn_arrows_lie_where_the_layer_samples():
    plot = pytest.importorskip('mmdysample.sampling.plot')
    placed = place(fixed_layer(BIAS, (-1.0, 0.5)), **PADDED)
    drawn = plot.draw_arrows(np.zeros((60, 100, 3), np.uint8), placed, np.array([[2, 3]]))
    zoom = plot.enlargement((60, 100))
    assert zoom == 8 and drawn.shape[1] == 800 and 480 < drawn.shape[0] < 600
    starts, ends = (zoom * (places[0] + 0.5) for places in placed.arrows(np.array([[2, 3]])))
    for group, colour in enumerate(plot.group_colours(2)):
        rows, columns = np.nonzero(colour_mask(drawn[: 60 * zoom], colour))
        corners = np.sort(np.stack((starts[group], ends[group])), axis=0)
        found = np.array([[columns.min(), rows.min()], [columns.max(), rows.max()]])
        assert np.abs(found - corners).max() <= 6  # half of a head's width, at the most
        middle = (starts[group] + ends[group]) / 2
        near = np.hypot(columns - middle[0], rows - middle[1]).min()
        assert near <= 2
    longer = plot.draw_arrows(np.zeros((60, 100, 3), np.uint8), placed, np.array([[2, 3]]), 2.0)
    _, columns = np.nonzero(colour_mask(longer[: 60 * zoom], plot.group_colours(2)[0]))
    assert abs(columns.max() - (2 * ends[0, 0] - starts[0, 0])) <= 6


def test_drawn_lengths_are_cut_to_the_picture_and_share_one_scale():
    plot = pytest.importorskip('mmdysample.sampling.plot')
    # The result is 16 wide, the picture ends after 12: of those, the last 4 have length 0.8.
    lengths = np.zeros((8, 16))
    lengths[:, 8:] = 0.8
    placed = with_lengths(place(fixed_layer(), (4, 8), (64, 96), 16), lengths)
    drawn = plot.draw_lengths(np.full((64, 96, 3), 128, np.uint8), placed)
    dark, bright = ((0.267004, 0.004874, 0.329415), (0.993248, 0.906157, 0.143936))  # viridis
    counts = [colour_mask(drawn, colour).sum() for colour in (bright, dark)]
    assert counts[1] > 10000
    assert counts[0] / counts[1] == pytest.approx(4 / 8, rel=0.06)


@pytest.mark.parametrize('groups', [1, 10, 16, 32])
def test_every_group_has_a_colour_of_its_own(groups):
    plot = pytest.importorskip('mmdysample.sampling.plot')
    colours = plot.group_colours(groups)
    assert colours.shape == (groups, 3)
    assert len({tuple(colour) for colour in colours}) == groups


def test_colours_of_lengths():
    plot = pytest.importorskip('mmdysample.sampling.plot')
    coloured = plot.colour_lengths(np.array([[0.0, 0.5, 7.0]]), 0.5)
    assert coloured.dtype == np.uint8
    assert coloured.tolist() == [[[68, 1, 84], [253, 231, 37], [253, 231, 37]]]
