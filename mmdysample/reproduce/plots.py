"""Plots as SVG that stands in a page: its fonts, its text colour, no ids that clash."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from html import escape

import matplotlib as mpl
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from mmdysample.reproduce.results import Cell, Run
from mmdysample.reproduce.tables import Table, column_label

GREY = '#868e99'
_SUFFIXES = ('_r101', '_swin_b', '_swin_l')
# Okabe and Ito's, told apart by the colour-blind, then darker ones of Tol's; each is legible on
# white and on near-black.
_COLOURS = {
    **{'dysample': '#0077bb', 'dysample_s': '#56b4e9', 'dysample_plus': '#d55e00'},
    **{'dysample_s_plus': '#cc79a7', 'carafe': '#e69f00', 'fade': '#009e73'},
    **{'fade_lite': '#009e73', 'sapa_b': '#9a5fb0', 'sapa_i': '#9a5fb0', 'sapa_d': '#9a5fb0'},
    **{'indexnet': '#999933', 'a2u': '#44aa99', 'deconv': '#b0563f'},
    **{'pixel_shuffle': '#a6761d', 'freqfusion': '#c2509a', 'bilinear': GREY, 'nearest': GREY},
    'lda_aqu': '#6b7a2f',
}
_INK = '#010203'  # stands for the page's text colour while matplotlib draws
_STYLE = {
    'svg.fonttype': 'none',
    'text.parse_math': False,  # a name may hold a dollar sign
    'font.size': 11,
    **{f'{part}.color': _INK for part in ('text', 'xtick', 'ytick', 'grid')},
    **{f'axes.{part}color': _INK for part in ('edge', 'label')},
    **{f'axes.spines.{side}': False for side in ('top', 'right')},
    'axes.linewidth': 0.6,
    'xtick.major.width': 0.6,
    'ytick.major.width': 0.6,
    'grid.alpha': 0.12,
    'grid.linewidth': 0.6,
}
_POINTS = 150  # of a curve at most
_REACH = 0.6  # what of wide intervals is drawn beyond all dots, in units of the dots' range


def upsampler_of(row: str) -> str:
    """Name a row's upsampler: its own name, without that of a backbone."""
    for suffix in _SUFFIXES:
        row = row.removesuffix(suffix)
    return row


def styles(table: Table) -> dict[str, tuple[str, bool]]:
    """Choose a colour for each row, and whether it is dashed because another has that colour."""
    chosen: dict[str, tuple[str, bool]] = {}
    for row in table.rows:
        colour = _COLOURS.get(upsampler_of(row), '#b0563f')
        chosen[row] = colour, any(colour == other for other, _ in chosen.values())
    chosen[table.baseline.name] = GREY, False
    return chosen


def draw_plots(
    table: Table, runs: Sequence[Run], cells: dict[str, dict[str, Cell]]
) -> list[tuple[str, Markup]]:
    """Draw a table's plots as ``svg`` elements, each with its caption."""
    key = f'{table.scale}-{table.name}'
    curves, label = learning_curves(table, runs), column_label(table.leading)[0]
    epochs = any('epoch' in line for run in runs for line in run.record.get('scalars', []))
    many = any(len(cell.values) > 1 for row in cells.values() for cell in row.values())
    over = ': mean over seeds, and from the least to the greatest' if many else ''
    interval = ', the bar its 95 % interval' if many else ''
    published = '; diamonds: published' if table.scale == 'full' else ''
    axis = 'epoch' if epochs else 'iteration'
    drawn = {
        f'Every dot is a seed, the stroke their mean{interval}{published}.': dot_plot(
            table, cells, f'dots-{key}'
        ),
        f'Loss in training, smoothed{over}.': curve_plot(
            table, curves['loss'], f'loss-{key}', 'iteration', 'loss', log=True
        ),
        f'{label} in validation{over}.': curve_plot(
            table, curves['validation'], f'validation-{key}', axis, label
        ),
    }
    return [(caption, Markup(svg)) for caption, svg in drawn.items() if svg]


def dot_plot(table: Table, cells: dict[str, dict[str, Cell]], key: str) -> str:
    """Draw the leading metric: a dot for each seed, the mean, and its 95 % interval.

    Confirmed published values of the same scale stand beside it as diamonds. Empty if nothing was
    measured.
    """
    metric = table.leading
    rows = [row for row in table.rows if metric in cells[row]]
    if not rows:
        return ''
    looks, marks = styles(table), []
    with mpl.rc_context(_STYLE):
        figure, axes = _new_plot(max(3.2, 0.75 + 0.3 * len(rows)))
        for height, row in enumerate(rows):
            cell, (colour, dashed) = cells[row][metric], looks[row]
            if cell.band is not None:
                ends = [cell.mean - cell.band, cell.mean + cell.band]
                axes.plot(ends, [height] * 2, color=colour, lw=5, alpha=0.3)
            marks += cell.values
            face = 'none' if dashed else colour
            axes.plot(cell.values, [height] * len(cell.values), 'o', c=colour, mfc=face, ms=5)
            axes.plot([cell.mean], [height], '|', color=colour, ms=15, mew=2)
            if cell.difference is not None:
                marks.append(cell.mean - cell.difference)
                axes.plot(marks[-1:], [height], 'D', color=_INK, mfc='none', ms=6)
        if metric in cells[table.baseline.name]:
            mean = cells[table.baseline.name][metric].mean
            axes.axvline(mean, color=GREY, linewidth=0.8, linestyle=':')
        axes.set_yticks(range(len(rows)), rows)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.tick_params(axis='y', length=0)
        axes.spines['left'].set_visible(False)
        axes.grid(axis='x')
        reach = _REACH * (max(marks) - min(marks))
        if reach:  # the interval of few seeds would stretch the axis until no dots are apart
            low, high = axes.get_xlim()
            axes.set_xlim(max(low, min(marks) - reach), min(high, max(marks) + reach))
        axes.locator_params(axis='x', nbins=6)
        label, unit = column_label(metric)
        better = 'less' if table.metrics[metric].lower else 'more'
        axes.set_xlabel(f'{label}{", " if unit else ""}{unit} ({better} is better)')
        return _to_svg(figure, key, f'{label} of every row and seed')


def learning_curves(table: Table, runs: Sequence[Run]) -> dict[str, pd.DataFrame]:
    """Sum up what the trainings logged.

    Returns:
        dict: ``loss`` and ``validation``, each with ``row``, ``step``, and over seeds ``mean``,
        ``min`` and ``max``, at steps that all seeds of the row have. A step done again after an
        interruption counts as it was done last.
    """
    metric = table.metrics[table.leading]
    lines = pd.DataFrame(
        [
            dict(row=run.row, seed=run.seed, step=line['step'], loss=line.get('loss'),
                 validation=None if 'loss' in line else line.get(metric.key))
            for run in runs
            for line in run.record.get('scalars', [])
            if 'step' in line
        ],
        columns=['row', 'seed', 'step', 'loss', 'validation'],
    )  # fmt: skip
    lines['validation'] = lines.validation.astype(float).where(lines.validation != -1)
    lines['validation'] *= metric.times
    curves = {}
    for name in ('loss', 'validation'):
        found = lines.dropna(subset=name).drop_duplicates(['row', 'seed', 'step'], keep='last')
        found = found.sort_values('step')
        if name == 'loss':  # averaged over a twentieth of the training
            found[name] = found.groupby(['row', 'seed'])[name].transform(
                lambda loss: loss.rolling(len(loss) // 20 + 1, min_periods=1, center=True).mean()
            )
        over_seeds = found.groupby(['row', 'step'])[name].agg(['mean', 'min', 'max', 'count'])
        over_seeds = over_seeds.reset_index()
        seeds = over_seeds.groupby('row')['count'].transform('max')
        curves[name] = over_seeds[over_seeds['count'] == seeds].drop(columns='count')
    return curves


def curve_plot(
    table: Table, curves: pd.DataFrame, key: str, axis: str, label: str, log: bool = False
) -> str:
    """Draw a curve for each row: the mean over seeds, and from the least to the greatest.

    Empty if there is no curve. Curves on a logarithmic scale have no marked points.
    """
    if curves.empty:
        return ''
    with mpl.rc_context(_STYLE):
        figure, axes = _new_plot(3.2)
        for row, (colour, dashed) in styles(table).items():
            curve = curves[curves.row == row]
            curve = curve.iloc[:: len(curve) // _POINTS + 1]
            if (curve['min'] < curve['max']).any():
                axes.fill_between(
                    curve.step, curve['min'], curve['max'], color=colour, alpha=0.14, lw=0
                )
            line, marker = '--' if dashed else '-', None if log else 'o'
            axes.plot(
                curve.step, curve['mean'], line, color=colour, lw=1.6, marker=marker, markersize=4
            )
        if log:  # with plain numbers at round values
            axes.set_yscale('log')
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(StrMethodFormatter('{x:g}'))
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.grid(axis='y')
        axes.locator_params(axis='x', nbins=6, integer=True)
        axes.set_xlabel(axis)
        axes.set_ylabel(label)
        return _to_svg(figure, key, f'{label} by {axis}')


def _new_plot(height: float):
    """Make a figure of a height in inches, with nothing behind it."""
    figure = Figure(figsize=(5.2, height), layout='constrained')
    axes = figure.subplots()
    figure.patch.set_alpha(0)
    axes.patch.set_alpha(0)
    return figure, axes


def _to_svg(figure: Figure, key: str, description: str) -> str:
    """Write a plot without what reaches into the page around it: styles, fonts and ids."""
    text = io.StringIO()
    with mpl.rc_context({'svg.hashsalt': key}):
        figure.savefig(text, format='svg', metadata={'Date': None, 'Creator': None})
    svg = text.getvalue()
    svg = re.sub(r'<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->', '', svg, flags=re.DOTALL)
    used = set(re.findall(r'#([^\s")]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda m: m[0] if m[1] in used else '', svg)
    svg = re.sub(r'font: ([\d.]+px)[^;"]*', r'font-size: \1', svg)
    svg = re.sub(r'(\d\.\d\d)\d+', r'\1', svg).replace(_INK, 'currentColor')
    _, _, width, height = re.search(r'viewBox="([^"]+)"', svg)[1].split()
    body = svg[svg.index('>', svg.index('<svg')) + 1 :].replace('xlink:href', 'href')
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(description)}" '
        f'style="max-width:{1.33 * float(width):.0f}px">{body.strip()}'
    )
