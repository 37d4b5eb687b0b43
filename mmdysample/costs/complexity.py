"""Parameters and multiply-accumulates of the upsamplers, alone and in the published networks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmdysample.costs.compare import compare
from mmdysample.costs.models import (
    Network,
    available_networks,
    count_network,
    count_parameters,
    count_with_fvcore,
)
from mmdysample.costs.options import add_upsamplers, check_upsamplers
from mmdysample.costs.stopwatch import progress
from mmdysample.engine.files import write_json
from mmdysample.engine.provenance import provenance
from mmdysample.reproduce.tables import PUBLISHED, load_published
from mmdysample.upsamplers import build_upsampler

CHANNELS, SIZE = 256, (120, 120)
"""The feature that the paper measures its upsamplers on."""

UPSAMPLERS = (
    *('nearest', 'bilinear', 'deconv', 'pixel_shuffle', 'carafe', 'indexnet', 'a2u'),
    *('fade', 'fade_lite', 'sapa_b', 'sapa_i', 'sapa_d', 'lda_aqu', 'freqfusion'),
    *('dysample', 'dysample_s', 'dysample_plus', 'dysample_s_plus'),
)
"""The rows of the published tables."""


def count_upsampler(name: str) -> dict[str, Any]:
    """Count one upsampler alone, at the paper's size.

    Args:
        name (str): Its type name.

    Returns:
        dict: ``upsampler``, ``params``, ``weights`` (convolution weights alone) and ``macs``.
    """
    upsampler = build_upsampler(name, CHANNELS)
    return dict(
        upsampler=name,
        params=count_parameters([upsampler]),
        weights=count_parameters([upsampler], weights_only=True),
        macs=upsampler.macs(*SIZE),
    )


def count_networks(
    networks: Sequence[Network],
    upsamplers: Sequence[str],
    published: str | Path,
    fvcore: bool = False,
) -> list[dict[str, Any]]:
    """Count networks with each upsampler and compare them with the published figures.

    Args:
        networks (Sequence[Network]): The networks.
        upsamplers (Sequence[str]): Type names; the baseline of a network is always counted.
        published (str or Path): File of the published figures.
        fvcore (bool): Count each network without its upsamplers by fvcore too. Defaults to False.

    Returns:
        list[dict]: One per network, with one row per upsampler.
    """
    tables = load_published(published)
    results = []
    for network in networks:
        names = [network.baseline, *(name for name in upsamplers if name != network.baseline)]
        rows = []
        for name in progress(names):
            cost = count_network(network, name)
            comparisons = [asdict(item) for item in compare(network, cost, tables)]
            rows.append({**asdict(cost), 'published': comparisons})
        second = count_with_fvcore(network) if fvcore else None
        results.append(dict(model=network.name, size=network.size, fvcore_macs=second, rows=rows))
    return results


def to_markdown(results: dict[str, Any]) -> str:
    """Render results as tables.

    Args:
        results (dict): The content of a result file.

    Returns:
        str: Markdown.
    """
    height, width = results['feature']['size']
    lines = [
        f'### x2 upsampling of 1 x {results["feature"]["channels"]} x {height} x {width}',
        '',
        '| upsampler | parameters | of these convolution weights | GMACs |',
        '| --- | ---: | ---: | ---: |',
        *(
            f'| {row["upsampler"]} | {row["params"]:,} | {row["weights"]:,} '
            f'| {row["macs"] / 1e9:.3f} |'
            for row in results['upsamplers']
        ),
    ]
    for model in results['models']:
        lines += ['', *_model_table(model)]
    return '\n'.join(lines) + '\n'


def main(arguments: Sequence[str] | None = None) -> None:
    """Count, print Markdown and write JSON.

    Args:
        arguments (Sequence[str], optional): Command line. Defaults to None, that of the process.
    """
    networks = {network.name: network for network in available_networks()}
    parser = argparse.ArgumentParser(
        description='Parameters and multiply-accumulates of the upsamplers, alone and in the '
        'networks of the published tables. The first part needs PyTorch alone; the networks need '
        'mmdet and mmseg.'
    )
    parser.add_argument(
        '--models',
        nargs='*',
        choices=list(networks),
        default=list(networks),
        metavar='MODEL',
        help=f'of {", ".join(networks) or "none: their packages are missing"} (default: all)',
    )
    add_upsamplers(parser, default=UPSAMPLERS)
    parser.add_argument(
        '--published',
        type=Path,
        default=PUBLISHED,
        metavar='FILE',
        help='published figures to compare with (default: the copy in this package)',
    )
    parser.add_argument(
        '--fvcore', action='store_true', help='count the networks with fvcore too, in a minute'
    )
    parser.add_argument('--out', type=Path, metavar='FILE', help='write the results as JSON')
    args = parser.parse_args(arguments)
    check_upsamplers(parser, args)
    if not args.published.is_file():
        parser.error(f'--published: there is no file {args.published}')
    if args.fvcore and find_spec('fvcore') is None:
        parser.error('--fvcore: fvcore is not installed')

    models = [networks[name] for name in args.models]
    results = dict(
        provenance=provenance(),
        feature=dict(channels=CHANNELS, size=SIZE),
        upsamplers=[count_upsampler(name) for name in args.upsamplers],
        models=count_networks(models, args.upsamplers, args.published, args.fvcore)
        if models
        else [],
    )
    sys.stdout.write(to_markdown(results))
    if args.out:
        write_json(args.out, results)


def _model_table(model: dict[str, Any]) -> list[str]:
    """Render one network's table, and below it what its published figures count otherwise."""
    height, width = model['size']
    notes: list[str] = []
    lines = [
        f'### {model["model"]}, {height} x {width}',
        '',
        '| upsampler | parameters | M added | published | GMACs | G added | published |',
        '| --- | ---: | ---: | ---: | ---: | ---: | ---: |',
    ]
    for row in model['rows']:
        cells = {item['column']: _published_cell(item, notes) for item in row['published']}
        lines.append(
            f'| {row["upsampler"]} | {row["params"]:,} | {row["upsampler_params"] / 1e6:.4f} '
            f'| {cells.get("params_m", "")} | {row["macs"] / 1e9:.2f} '
            f'| {row["upsampler_macs"] / 1e9:.3f} | {cells.get("flops_g", "")} |'
        )
    if notes:
        lines += ['', *(f'{number}. {why}' for number, why in enumerate(notes, 1))]
    if model['fvcore_macs'] is not None:
        rest = model['rows'][0]['macs'] - model['rows'][0]['upsampler_macs']
        lines += [
            '',
            f"Without upsamplers PyTorch's counter finds {rest:,} multiply-accumulates, "
            f'fvcore {model["fvcore_macs"]:,}.',
        ]
    return lines


def _published_cell(item: dict[str, Any], notes: list[str]) -> str:
    """Write the printed number, whether ours agrees, and ours where a note says that it differs."""
    mark = '✓' if item['agrees'] else '≠'
    if not item['why']:
        return f'{item["published"]} {mark}'
    if item['why'] not in notes:
        notes.append(item['why'])
    return f'{item["published"]} {mark} {item["computed"]:.4g} ({notes.index(item["why"]) + 1})'
