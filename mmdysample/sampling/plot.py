"""Pictures of where a DySample layer samples: arrows over the image, and maps of their length."""

from __future__ import annotations

import math

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mmdysample.sampling.positions import PlacedSampling

_DPI = 100
_WIDTH = 800  # pixels that small pictures are enlarged to, so that short arrows can be seen
_STRIP = 60  # pixels of the legend below the arrows
_LEGEND = 600  # pixels of its width
_PALETTES = ((10, 'tab10'), (20, 'tab20'))
_COLUMNS = 3
_PANEL = 3.2  # inches
MAP_COLOURS = 'viridis'


def group_colours(groups: int) -> np.ndarray:
    """Choose the colours of the channel groups' arrows.

    Args:
        groups (int): How many.

    Returns:
        np.ndarray: ``(groups, 3)``, red, green and blue of 0 to 1.
    """
    for number, name in _PALETTES:
        if groups <= number:
            return np.array(matplotlib.colormaps[name].colors[:groups])
    return matplotlib.colormaps['hsv'](np.arange(groups) / groups)[:, :3]


def enlargement(picture_size: tuple[int, int]) -> int:
    """Tell how many times wider and higher :func:`draw_arrows` makes a picture of a size."""
    return max(1, math.ceil(_WIDTH / max(picture_size)))


def draw_arrows(
    picture: np.ndarray, placed: PlacedSampling, pixels: np.ndarray, arrow_scale: float = 1.0
) -> np.ndarray:
    """Draw from where to where a layer samples, an arrow for each pixel and channel group.

    Args:
        picture (np.ndarray): ``(H, W, 3)``, RGB, uint8.
        placed (PlacedSampling): The layer's sampling of this picture.
        pixels (np.ndarray): Output pixels of the layer to draw, ``(P, 2)``, row before column.
        arrow_scale (float): Stretch the arrows by this factor, and say so in the legend.
            Defaults to 1.

    Returns:
        np.ndarray: RGB, uint8: the picture, enlarged by the whole number that
        :func:`enlargement` gives, in the upper left, and a legend below it.
    """
    height, width = picture.shape[:2]
    zoom = enlargement((height, width))
    canvas_width, canvas_height = max(width * zoom, _LEGEND), height * zoom + _STRIP
    figure = Figure(figsize=(canvas_width / _DPI, canvas_height / _DPI), dpi=_DPI)
    canvas = FigureCanvasAgg(figure)
    share = _STRIP / canvas_height
    place = (0, share, width * zoom / canvas_width, 1 - share)
    axes = figure.add_axes(place, frameon=False, xticks=[], yticks=[])
    axes.imshow(picture, interpolation='nearest', aspect='auto')
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    starts, ends = placed.arrows(pixels)
    colours = group_colours(starts.shape[1])
    for group, colour in enumerate(colours):
        start, step = starts[:, group], arrow_scale * (ends - starts)[:, group]
        axes.quiver(
            *start.T,
            *step.T,
            color=colour,
            angles='xy',
            scale_units='xy',
            scale=1,
            units='dots',
            width=2,
            headwidth=4,
            headlength=5,
            headaxislength=4.5,
            zorder=3,
        )
    axes.plot(*starts[:, 0].T, '.', color='white', markeredgecolor='black', markersize=4, zorder=2)
    _draw_legend(figure, share, placed, colours, zoom, arrow_scale)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw_legend(
    figure: Figure,
    share: float,
    placed: PlacedSampling,
    colours: np.ndarray,
    zoom: int,
    arrow_scale: float,
) -> None:
    axes = figure.add_axes((0, 0, 1, share), frameon=False, xticks=[], yticks=[])
    axes.set_xlim(0, figure.get_figwidth() * _DPI)
    axes.set_ylim(0, _STRIP)
    unit = abs(placed.to_picture.scale[0])
    legend = 'from the initial position to where each group samples'
    if arrow_scale != 1:
        legend += f', arrows {arrow_scale:g} times as long as they are'
    axes.text(8, 44, placed.name)
    axes.text(8, 26, legend)
    axes.plot([8, 8 + unit * zoom], [12, 12], color='black', linewidth=3, solid_capstyle='butt')
    axes.text(16 + unit * zoom, 8, f'1 input pixel = {unit:.3g} image pixels')
    for group, colour in enumerate(colours):
        right = figure.get_figwidth() * _DPI - 16 * (len(colours) - group)
        axes.text(right, 8, str(group + 1), color=colour, fontweight='bold', ha='center')
    axes.text(right - 16 * len(colours), 8, 'group', ha='right')


def draw_lengths(picture: np.ndarray, placed: PlacedSampling) -> np.ndarray:
    """Draw the picture, the mean offset length, and the length in each group, on one scale.

    Args:
        picture (np.ndarray): ``(H, W, 3)``, RGB, uint8.
        placed (PlacedSampling): The layer's sampling of this picture.

    Returns:
        np.ndarray: RGB, uint8. The maps show the part of the layer's result that lies over the
        picture, without padding.
    """
    height, width = picture.shape[:2]
    length = placed.sampling.length[0].cpu().numpy()
    panels = {'mean of the groups': length.mean(axis=0)}
    panels |= {f'group {group + 1}': values for group, values in enumerate(length)}
    rows = math.ceil((1 + len(panels)) / _COLUMNS)
    size = (_COLUMNS * _PANEL + 1, rows * (_PANEL * height / width + 0.35) + 0.4)
    figure = Figure(figsize=size, dpi=_DPI, layout='constrained')
    canvas = FigureCanvasAgg(figure)
    cells = figure.subplots(rows, _COLUMNS, squeeze=False)
    first, *others = cells.flat
    first.imshow(picture)
    first.set_title('picture', fontsize=9)
    left, top = placed.out_to_picture((-0.5, -0.5))
    right, bottom = placed.out_to_picture(np.array(placed.out_size[::-1]) - 0.5)
    limit = np.nanmax(length, initial=0) or 1.0
    for axes, (title, values) in zip(others, panels.items(), strict=False):
        shown = axes.imshow(
            values,
            cmap=MAP_COLOURS,
            vmin=0,
            vmax=limit,
            extent=(left, right, bottom, top),
            interpolation='nearest',
        )
        axes.set_title(title, fontsize=9)
    for axes in cells.flat:
        axes.set_xlim(-0.5, width - 0.5)
        axes.set_ylim(height - 0.5, -0.5)
        axes.set_axis_off()
    unit = abs(placed.to_picture.scale[0])
    label = f'offset length, input pixels (1 = {unit:.3g} image pixels)'
    figure.colorbar(shown, ax=cells, label=label)
    figure.suptitle(placed.name, fontsize=10)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def colour_lengths(length: np.ndarray, limit: float) -> np.ndarray:
    """Give lengths the colours of :func:`draw_lengths`.

    Args:
        length (np.ndarray): ``(h, w)``.
        limit (float): The length that gets the last colour; longer ones get it too.

    Returns:
        np.ndarray: ``(h, w, 3)``, RGB, uint8.
    """
    colours = matplotlib.colormaps[MAP_COLOURS](np.clip(length / limit, 0, 1))
    return (255 * colours[..., :3]).round().astype(np.uint8)
