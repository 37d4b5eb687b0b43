"""The report as one HTML page that needs no other file and no host."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader  # comes with torch
from markupsafe import Markup
from PIL import Image

from mmdysample.reproduce.report import numbers
from mmdysample.reproduce.report.colours import Style, styles, upsampler_of
from mmdysample.reproduce.report.gather import BETTER, WORSE
from mmdysample.reproduce.report.plots import curve_plot, dot_plot
from mmdysample.reproduce.report.views import SCORE_THRESHOLD

MEMBERS = ('dysample', 'dysample_s', 'dysample_plus', 'dysample_s_plus')
"""Rows of which the overview tells the gain."""

_FOLDER = Path(__file__).parent
_QUALITY = 88  # of WebP: lines and enlarged pixels stay clear


class Numbers:
    """Writes numbers of a report as elements that also hold them unrounded, and their place.

    Args:
        report (dict): The whole report.
    """

    def __init__(self, report: Mapping[str, Any]) -> None:
        self.report = report

    def get(self, pointer: str) -> Any:
        """Look up what a JSON pointer leads to.

        Raises:
            KeyError: If that is nothing.
            IndexError: If that is nothing.
        """
        value: Any = self.report
        for part in pointer.split('/')[1:]:
            key = part.replace('~1', '/').replace('~0', '~')
            value = value[int(key)] if isinstance(value, list | tuple) else value[key]
        return value

    def number(self, pointer: str, how: str, detail: Any = None) -> Markup:
        """Write a number.

        Args:
            pointer (str): Where in the report it is.
            how (str): 'fixed' or 'signed' with ``detail`` decimals, 'printed' as ``detail`` says
                (a published number's own digits), 'count', 'ms', 'ratio' or 'duration'.
            detail: See there. Defaults to None.
        """
        value = self.get(pointer)
        text = {
            'fixed': lambda: numbers.fixed(value, detail),
            'signed': lambda: numbers.signed(value, detail),
            'printed': lambda: detail,
            'count': lambda: numbers.count(value),
            'ms': lambda: numbers.milliseconds(value),
            'ratio': lambda: f'{value:.2f}×',
            'duration': lambda: numbers.duration(value),
        }[how]()
        return Markup('<data value="{}" data-at="{}">{}</data>').format(repr(value), pointer, text)

    def optional(self, pointer: str, how: str) -> str:
        """Write a number, or a dash where there is none."""
        parent, _, key = pointer.rpartition('/')
        return '–' if self.get(parent).get(key) is None else self.number(pointer, how)


def to_html(report: Mapping[str, Any], pictures: Path) -> str:
    """Write the page.

    Args:
        report (dict): What :func:`mmdysample.reproduce.report.gather.gather` made.
        pictures (Path): Folder of the pictures that the report names.
    """
    tables = report['tables']
    looks = [styles([r['name'] for r in t['rows']], t['baseline']) for t in tables]
    writer = Numbers(report)
    environment = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, trim_blocks=False, lstrip_blocks=True
    )
    environment.globals.update(
        get=writer.get,
        number=writer.number,
        optional=writer.optional,
        arrow=_arrow,
        escaped=lambda name: name.replace('~', '~0').replace('/', '~1'),
        verdict_class=lambda verdict: verdict if verdict in (BETTER, WORSE) else 'noise',
        member_row=_member_row,
        row_index=lambda table, row: table['rows'].index(row),
        table_index=lambda pointer: int(pointer.rpartition('/')[2]),
        has_costs=lambda table: any(row['cost'] for row in table['rows']),
        cost_image=_cost_image,
        published_rows=lambda table: [row for row in table['rows'] if row['published']],
        any_recalled=_any_recalled,
        sources_of=_sources_of,
        source_name=_source_name,
        classes_of=_classes_of,
        failures=lambda table: [
            (row, run) for row in table['rows'] for run in row['runs'] if run['error']
        ],
    )
    page = environment.get_template('page.html').render(
        report=report,
        score_threshold=SCORE_THRESHOLD,
        css=Markup((_FOLDER / 'page.css').read_text(encoding='utf-8')),
        anchors=[f'{table["scale"]}-{table["name"]}' for table in tables],
        members=MEMBERS,
        styles=looks,
        figures=[
            _figures(table, look, str(index))
            for index, (table, look) in enumerate(zip(tables, looks, strict=True))
        ],
        images={
            picture['file']: _embedded(pictures / picture['file'])
            for table in tables
            for picture in table['pictures']
        },
        depth_gradient=_depth_gradient(tables),
    )
    return page.lstrip() + '\n'


def _figures(
    table: Mapping[str, Any], look: dict[str, Style], key: str
) -> list[tuple[str, Markup]]:
    """Draw a table's figures, each with its caption."""
    metric = table['columns'][table['leading']]
    curves = table['curves']
    many = any(row['runs'] and len(row['runs']) > 1 for row in table['rows'])
    over = ': mean over seeds, and from the least to the greatest' if many else ''
    published = '; diamonds: published' if table['scale'] == 'full' else ''
    interval = ', the bar its 95 % interval' if many else ''
    drawn = [
        (
            f'Every dot is a seed, the stroke their mean{interval}{published}.',
            dot_plot(table, look, f'dots{key}'),
        ),
        (
            f'Loss in training, smoothed{over}.',
            curve_plot(curves['loss'], look, f'loss{key}', 'iteration', 'loss', log=True),
        ),
        (
            f'{metric["label"]} in validation{over}.',
            curve_plot(
                curves['validation'],
                look,
                f'validation{key}',
                curves['axis'],
                metric['label'],
                dots=True,
            ),
        ),
    ]
    return [(caption, Markup(svg)) for caption, svg in drawn if svg]


def _arrow(gain: Mapping[str, Any]) -> str:
    """Show where a distinguishable gain points to."""
    if gain['verdict'] not in (BETTER, WORSE):
        return ''
    return '▲ ' if gain['mean'] > 0 else '▼ '


def _member_row(table: Mapping[str, Any], member: str) -> int | None:
    """Find a member of DySample among the rows that are compared with the first one."""
    for index, row in enumerate(table['rows']):
        if upsampler_of(row['name']) == member and row['baseline'] == table['baseline']:
            return index
    return None


def _cost_image(table: Mapping[str, Any]) -> str:
    sizes = {tuple(row['cost'].get('image') or ()) for row in table['rows'] if row['cost']}
    sizes.discard(())
    return ' or '.join(' × '.join(map(str, size)) for size in sorted(sizes))


def _classes_of(table: Mapping[str, Any]) -> dict[str, str]:
    """Gather the colours of all classes that a table's pictures show."""
    return {name: c for picture in table['pictures'] for name, c in picture['classes'].items()}


def _any_recalled(table: Mapping[str, Any]) -> bool:
    figures = (figure for row in table['rows'] for figure in row['published'].values())
    return any(figure['status'] == 'recalled' for figure in figures)


def _sources_of(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List a row's sources, each once, with what there is to know about it."""
    return list(dict.fromkeys((f['source'], f['note']) for f in row['published'].values()))


def _source_name(source: Mapping[str, str]) -> str:
    """Name a source so that it is known without its address."""
    address = urlsplit(source['url'])
    place = address.path.strip('/') if address.netloc == 'github.com' else address.netloc
    return f'{place}, {source["what"]}'


def _embedded(path: Path) -> str:
    """Put a picture into an address; as WebP, which keeps a page of many pictures small."""
    content = io.BytesIO()
    with Image.open(path) as picture:
        picture.save(content, 'WEBP', quality=_QUALITY)
    return f'data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}'


def _depth_gradient(tables: list[Mapping[str, Any]]) -> str:
    """Write the colours of depth as CSS; empty if no table shows depth."""
    if not any(p.get('depth_range') for t in tables for p in t['pictures']):
        return ''
    import numpy as np

    from mmdysample.depth.visualizer import colour_depth

    colours = colour_depth(np.linspace(1, 2, 12)[None], (1, 2))[0]
    stops = ', '.join(f'rgb({r} {g} {b})' for r, g, b in colours.tolist())
    return f'linear-gradient(to right, {stops})'
