"""Figures as SVG that stands in a page: its fonts, its text colour, no ids that clash."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from functools import wraps
from typing import Any
from xml.etree import ElementTree

from mmdysample.reproduce.report.colours import Style
from mmdysample.reproduce.report.numbers import fixed

_INK = '#010203'  # stands for the page's text colour while matplotlib draws
_SETTINGS = {
    'svg.fonttype': 'none',
    'text.parse_math': False,  # a name may hold a dollar sign
    'font.size': 11,
    'text.color': _INK,
    'axes.edgecolor': _INK,
    'axes.labelcolor': _INK,
    'axes.unicode_minus': True,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.linewidth': 0.6,
    'xtick.color': _INK,
    'ytick.color': _INK,
    'xtick.major.width': 0.6,
    'ytick.major.width': 0.6,
    'grid.color': _INK,
    'grid.alpha': 0.12,
    'grid.linewidth': 0.6,
}
_ROW_HEIGHT = 0.3  # inches
_REACH = 0.6  # what of wide intervals is drawn beyond all dots, in units of the dots' range


def _in_page_style(draw: Callable[..., str]) -> Callable[..., str]:
    """Draw with the settings above, and leave matplotlib's as they were."""

    @wraps(draw)
    def wrapper(*args: Any, **kwargs: Any) -> str:
        import matplotlib

        with matplotlib.rc_context(_SETTINGS):
            return draw(*args, **kwargs)

    return wrapper


@_in_page_style
def dot_plot(table: dict[str, Any], styles: dict[str, Style], key: str) -> str:
    """Draw the leading metric: a dot for each seed, the mean, and its 95 % interval.

    Confirmed published values stand beside it as diamonds, where they belong to the same setting.

    Args:
        table (dict): One table of the report.
        styles (dict[str, Style]): Of the rows.
        key (str): What tells this figure from all others of the page.

    Returns:
        str: An ``svg`` element; empty if nothing was measured.
    """
    column = table['leading']
    metric = table['columns'][column]
    rows = [row for row in table['rows'] if column in row['measured']]
    if not rows:
        return ''
    figure, axes = _new_figure(5.2, max(3.2, 0.75 + _ROW_HEIGHT * len(rows)))
    marks: list[float] = []
    for height, row in enumerate(rows):
        style, summary = styles[row['name']], row['measured'][column]
        face = 'none' if style.dashed else style.colour
        if summary['band'] is not None:
            axes.plot(
                [summary['mean'] - summary['band'], summary['mean'] + summary['band']],
                [height, height],
                color=style.colour,
                linewidth=5,
                alpha=0.3,
                solid_capstyle='round',
            )
        marks += summary['values']
        seeds = [height] * summary['count']
        axes.plot(summary['values'], seeds, 'o', color=style.colour, markerfacecolor=face, ms=5)
        axes.plot([summary['mean']], [height], '|', color=style.colour, ms=15, mew=2)
        figures = row['published']
        same_setting = table['scale'] == 'full' and column in figures
        if same_setting and figures[column]['status'] == 'confirmed':
            marks.append(figures[column]['value'])
            axes.plot(marks[-1:], [height], 'D', color=_INK, markerfacecolor='none', ms=6)
    baseline = next((r for r in rows if r['name'] == table['baseline']), None)
    if baseline:
        mean = baseline['measured'][column]['mean']
        axes.axvline(mean, color=styles[baseline['name']].colour, linewidth=0.8, linestyle=':')
    axes.set_yticks(range(len(rows)), [row['name'] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis='y', length=0)
    axes.spines['left'].set_visible(False)
    axes.grid(axis='x')
    axes.set_xlim(*_limits(marks, axes.get_xlim()))
    axes.locator_params(axis='x', nbins=6)
    axes.set_xlabel(_axis_label(metric))
    said = '; '.join(
        f'{row["name"]} {fixed(row["measured"][column]["mean"], metric["digits"])}' for row in rows
    )
    return _to_svg(figure, key, f'{metric["label"]} of every row and seed: {said}')


def _limits(marks: list[float], wanted: tuple[float, float]) -> tuple[float, float]:
    """Cut an axis that the wide interval of few seeds would stretch until no dots are apart."""
    reach = _REACH * (max(marks) - min(marks))
    if not reach:
        return wanted
    return max(wanted[0], min(marks) - reach), min(wanted[1], max(marks) + reach)


@_in_page_style
def curve_plot(
    curves: dict[str, dict],
    styles: dict[str, Style],
    key: str,
    axis: str,
    label: str,
    dots: bool = False,
    log: bool = False,
) -> str:
    """Draw a curve for each row: the mean over seeds, and from the least to the greatest.

    Args:
        curves (dict[str, dict]): ``step``, ``mean``, ``low`` and ``high`` by row.
        styles (dict[str, Style]): Of the rows.
        key (str): What tells this figure from all others of the page.
        axis (str): What the steps count.
        label (str): What is drawn.
        dots (bool): Whether single points are marked. Defaults to False.
        log (bool): Whether the scale is logarithmic. Defaults to False.

    Returns:
        str: An ``svg`` element; empty if there is no curve.
    """
    if not curves:
        return ''
    figure, axes = _new_figure(5.2, 3.2)
    for name, curve in curves.items():
        style = styles[name]
        line = '--' if style.dashed else '-'
        if curve['low'] != curve['high']:
            axes.fill_between(
                curve['step'], curve['low'], curve['high'], color=style.colour, alpha=0.14, lw=0
            )
        axes.plot(
            curve['step'],
            curve['mean'],
            line,
            color=style.colour,
            linewidth=1.6,
            marker='o' if dots else None,
            markersize=4,
        )
    if log:
        _use_log_scale(axes)
    axes.grid(axis='y')
    axes.locator_params(axis='x', nbins=6, integer=True)
    axes.set_xlabel(axis)
    axes.set_ylabel(label)
    return _to_svg(figure, key, f'{label} by {axis} for {", ".join(curves)}')


def _use_log_scale(axes) -> None:
    """Scale by the logarithm, with plain numbers at a few round places."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axes.set_yscale('log')
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter('{x:g}'))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _axis_label(metric: dict[str, Any]) -> str:
    unit = f', {metric["unit"]}' if metric['unit'] else ''
    return f'{metric["label"]}{unit} ({"less" if metric["lower"] else "more"} is better)'


def _new_figure(width: float, height: float):
    """Make a figure of a size in inches, with nothing behind it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout='constrained')
    axes = figure.subplots()
    figure.patch.set_alpha(0)
    axes.patch.set_alpha(0)
    return figure, axes


def _to_svg(figure, key: str, description: str) -> str:
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({'svg.hashsalt': key}):
        figure.savefig(text, format='svg', metadata={'Date': None, 'Creator': None})
    return _for_page(text.getvalue(), description)


def _for_page(text: str, description: str) -> str:
    """Strip what a figure of its own needs, and what would reach into the page around it."""
    root = ElementTree.fromstring(text.encode())
    used = set(re.findall(r'#([^\s")]+)', text))
    for element in list(root.iter()):
        for child in list(element):
            if _plain(child.tag) in ('metadata', 'style'):  # its style is for every element
                element.remove(child)
        element.tag = _plain(element.tag)
        attributes = {_plain(name): value for name, value in element.attrib.items()}
        if attributes.get('id') not in used:
            attributes.pop('id', None)
        for name in attributes:
            attributes[name] = _restyled(attributes[name])
        element.attrib.clear()
        element.attrib.update(attributes)
    _, _, width, height = root.get('viewBox').split()
    root.attrib.clear()
    root.attrib.update(
        {
            'viewBox': f'0 0 {width} {height}',
            'role': 'img',
            'aria-label': description,
            'style': f'max-width:{1.33 * float(width):.0f}px',
        }
    )
    return ElementTree.tostring(root, encoding='unicode')


def _plain(name: str) -> str:
    return name.rpartition('}')[2]


def _restyled(value: str) -> str:
    value = value.replace(_INK, 'currentColor')
    value = re.sub(r'font: ([\d.]+px)[^;]*', r'font-size: \1', value)
    return re.sub(r'(\d\.\d\d)\d+', r'\1', value)
