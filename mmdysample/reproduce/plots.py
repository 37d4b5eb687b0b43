"""Plots as SVG in an address: no font, style or name of theirs reaches the page around them."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from mmdysample.reproduce.results import Cell, Run
from mmdysample.reproduce.tables import Table, column_label
from mmdysample.upsamplers import upsampler_names

GREY = '#868e99'
# Okabe and Ito's, told apart by the colour-blind, then darker ones of Tol's; each is legible on
# white and on near-black.
_COLOURS = '#e69f00 #a6761d #009e73 #b0563f #0077bb #d55e00 #56b4e9 #cc79a7 #999933 #44aa99 #9a5fb0'
_COLOURS = _COLOURS.split()
_INK = '#010203'  # stands for the colour of text while matplotlib draws
_THEME = ':root{color:#1d2530}@media(prefers-color-scheme:dark){:root{color:#dfe5ec}}'
_STYLE = {
    'svg.fonttype': 'none',
    'svg.hashsalt': 'equal plots are equal files',
    'text.parse_math': False,  # a name may hold a dollar sign
    'font.size': 11,
    **{f'{part}.color': _INK for part in ('text', 'xtick', 'ytick', 'grid')},
    **{f'axes.{part}color': _INK for part in ('edge', 'label')},
    **{f'axes.spines.{side}': False for side in ('top', 'right')},
    **{f'{part}width': 0.6 for part in ('axes.line', 'grid.line', 'xtick.major.', 'ytick.major.')},
    'grid.alpha': 0.12,
}
_POINTS = 150  # of a curve at most
_REACH = 0.6  # what of long intervals is drawn beyond all dots, in units of the dots' range


def upsampler_of(row: str) -> str:
    """Name a row's upsampler: the longest registered name that it begins with, or all of it."""
    names = (name for name in upsampler_names() if f'{row}_'.startswith(f'{name}_'))
    return max(names, key=len, default=row)


def styles(table: Table) -> dict[str, tuple[str, bool]]:
    """Choose a colour for each row, and whether it is dashed because another has that colour.

    An upsampler has the same colour in all tables.
    """
    names, chosen = upsampler_names(), {}
    for row in table.rows:
        name = upsampler_of(row)
        colour = _COLOURS[(names.index(name) if name in names else -1) % len(_COLOURS)]
        chosen[row] = colour, any(colour == other for other, _ in chosen.values())
    return chosen | {table.baseline.name: (GREY, False)}


def draw_plots(
    table: Table, runs: Sequence[Run], cells: dict[str, dict[str, Cell]]
) -> list[tuple[str, str]]:
    """Draw a table's plots: the caption and the address of each."""
    curves, label = learning_curves(table, runs), column_label(table.leading)[0]
    many = any(len(cell.values) > 1 for row in cells.values() for cell in row.values())
    over = ': mean over seeds, and from the least to the greatest' if many else ''
    interval = ', the bar its 95 % interval' if many else ''
    published = '; diamonds: published' if table.scale == 'full' else ''
    epochs = any('epoch' in line for run in runs for line in run.record.get('scalars', []))
    axis = 'epoch' if epochs else 'iteration'
    drawn = {
        f'Every dot is a seed, the stroke their mean{interval}{published}.': dot_plot(table, cells),
        f'Loss in training, smoothed{over}.': curve_plot(
            table, curves['loss'], 'iteration', 'loss', log=True
        ),
        f'{label} in validation{over}.': curve_plot(table, curves['validation'], axis, label),
    }
    return [(caption, address) for caption, address in drawn.items() if address]


def dot_plot(table: Table, cells: dict[str, dict[str, Cell]]) -> str:
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
        figure = Figure(figsize=(5.2, max(3.2, 0.75 + 0.3 * len(rows))), layout='constrained')
        axes = figure.subplots()
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
            axes.axvline(cells[table.baseline.name][metric].mean, color=GREY, lw=0.8, ls=':')
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
        label = ', '.join(filter(None, column_label(metric)))
        better = 'less' if table.metrics[metric].lower else 'more'
        axes.set_xlabel(f'{label} ({better} is better)')
        return _to_address(figure)


def learning_curves(table: Table, runs: Sequence[Run]) -> dict[str, pd.DataFrame]:
    """Sum up what the trainings logged.

    Returns:
        dict: ``loss`` and ``validation``, each with ``row``, ``step``, and over seeds ``mean``,
        ``min`` and ``max``, at steps that all seeds of the row have. A step done again after an
        interruption counts as it was done last.
    """
    metric = table.metrics[table.leading]
    logs = [
        pd.DataFrame(run.record.get('scalars', [])).assign(row=run.row, seed=run.seed)
        for run in runs
    ]
    lines = pd.concat([pd.DataFrame(), *logs])
    curves = {}
    for name, key, times in (('loss', 'loss', 1), ('validation', metric.key, metric.times)):
        found = lines.reindex(columns=['row', 'seed', 'step', key]).dropna()
        found = found.rename(columns={key: name}).astype({name: float, 'step': float})
        found = found[found[name] != -1].drop_duplicates(['row', 'seed', 'step'], keep='last')
        found = found.sort_values('step')
        found[name] *= times
        if name == 'loss':  # averaged over a twentieth of the training
            found[name] = found.groupby(['row', 'seed'])[name].transform(
                lambda loss: loss.rolling(len(loss) // 20 + 1, min_periods=1, center=True).mean()
            )
        over_seeds = found.groupby(['row', 'step'])[name].agg(['mean', 'min', 'max', 'count'])
        seeds = over_seeds['count'].groupby('row').transform('max')
        curves[name] = over_seeds[over_seeds['count'] == seeds].reset_index().drop(columns='count')
    return curves


def curve_plot(table: Table, curves: pd.DataFrame, axis: str, label: str, log: bool = False) -> str:
    """Draw a curve for each row: the mean over seeds, and from the least to the greatest.

    Empty if there is no curve. Curves on a logarithmic scale have no marked points.
    """
    if curves.empty:
        return ''
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(5.2, 3.2), layout='constrained')
        axes = figure.subplots()
        for row, (colour, dashed) in styles(table).items():
            curve = curves[curves.row == row]
            curve = curve.iloc[:: len(curve) // _POINTS + 1]
            if (curve['min'] < curve['max']).any():
                axes.fill_between(
                    curve.step, curve['min'], curve['max'], color=colour, alpha=0.14, lw=0
                )
            line, marker = '--' if dashed else '-', None if log else 'o'
            axes.plot(curve.step, curve['mean'], line, c=colour, lw=1.6, marker=marker, ms=4)
        if log:  # with plain numbers at round values
            axes.set_yscale('log')
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(StrMethodFormatter('{x:g}'))
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.grid(axis='y')
        axes.locator_params(axis='x', nbins=6, integer=True)
        axes.set_xlabel(axis)
        axes.set_ylabel(label)
        return _to_address(figure)


def _to_address(figure: Figure) -> str:
    """Write a plot into an address; its text is dark on a light page and light on a dark one."""
    text = io.StringIO()
    figure.savefig(text, format='svg', transparent=True, metadata={'Date': None})
    svg = text.getvalue().replace(_INK, 'currentColor').replace('</style>', f'{_THEME}</style>', 1)
    svg = re.sub(r'(font: [\d.]+px)[^;"]*', r'\1 system-ui, sans-serif', svg)
    svg = re.sub(r'(\d\.\d\d)\d+', r'\1', svg)  # a hundredth of a point is enough
    return f'data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}'
