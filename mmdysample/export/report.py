"""The measurements behind the page "Ship it": models exported, checked, and timed in turn."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from torch import nn

from mmdysample.costs.stopwatch import measure, median_and_quartiles
from mmdysample.engine.build import build_model
from mmdysample.engine.files import write_json
from mmdysample.engine.launch import project_root, run_tool
from mmdysample.engine.provenance import device_name, provenance
from mmdysample.export.check import TOLERANCES, Difference, compare, require_equal, unseen_inputs
from mmdysample.export.errors import ExportError
from mmdysample.export.export import export_model
from mmdysample.export.parts import NETWORK, name_outputs, split_model
from mmdysample.export.runtimes import DESCRIPTION, SUFFIXES, open_graph, write_openvino

SIZE = (128, 192)
"""Height and width of the images of exports with fixed sizes."""

CONFIGS = {
    'Faster R-CNN R18': 'scenes/faster-rcnn_r18_fpn-dysample_12e_scenes.py',
    'SegFormer-B0': 'segformer/segformer_mit-b0_dysample-s-plus_8xb2-160k_ade20k-512x512.py',
    'Faster R-CNN R50': 'faster_rcnn/faster-rcnn_r50_fpn-dysample_1x_coco.py',
    'Mask R-CNN R50': 'mask_rcnn/mask-rcnn_r50_fpn-dysample_1x_coco.py',
    'Panoptic FPN R50': 'panoptic_fpn/panoptic-fpn_r50_fpn-dysample_1x_coco.py',
    'RTMDet tiny': 'rtmdet/rtmdet_tiny_dysample_8xb32-300e_coco.py',
    'YOLOX-S': 'yolox/yolox_s_dysample_8xb8-300e_coco.py',
    'SegFormer-B1': 'segformer/segformer_mit-b1_dysample_8xb2-160k_ade20k-512x512.py',
    'UPerNet R50': 'upernet/upernet_r50_dysample-plus_4xb4-80k_ade20k-512x512.py',
    'DepthFormer Swin-T': 'depthformer/depthformer_swin-t_dysample_2xb8-38k_nyu-416x544.py',
}
"""Configs below ``configs``, by what the table calls the model."""

_MEMBERS = ('dysample', 'dysample_s_plus')
_IN_NCNN = ('Faster R-CNN R18', 'SegFormer-B0')
_WITH_CARAFE = ('Faster R-CNN R50', 'SegFormer-B0')


def cases() -> list[tuple[str, str]]:
    """Pair models and upsamplers: the two members, CARAFE for two, the stock ones of the ratios."""
    wanted = [(name, kind) for name in CONFIGS for kind in _MEMBERS]
    wanted += [(name, 'carafe') for name in _WITH_CARAFE]
    return wanted + [(name, 'stock') for name in CONFIGS]


def random_model(name: str, upsampler: str) -> nn.Module:
    """Build a model whose random weights let every layer matter.

    A fresh detection head answers with a constant, and a fresh upsampler hardly moves its samples:
    a wrong graph would pass. So all weights are drawn anew.

    Args:
        name (str): Of :data:`CONFIGS`.
        upsampler (str): Its type, or ``'stock'``: nearest, or bilinear in a head.
    """
    cfg = Config.fromfile(project_root() / 'configs' / CONFIGS[name])
    part, stock = ('decode_head', 'bilinear') if 'decode_head' in cfg.model else ('neck', 'nearest')
    cfg.model[part].upsample_cfg = dict(type=stock if upsampler == 'stock' else upsampler)
    torch.manual_seed(0)
    model = revert_sync_batchnorm(build_model(cfg))
    # Features of ResNet-50 with such weights reach thousands, and 0.02 would give offsets of a
    # hundred pixels, which turn PyTorch's own rounding into differences of half a percent. These
    # give about one pixel, and CARAFE logits of a trained network's size.
    std = 0.02
    if name.endswith('R50'):
        std = 0.001 if upsampler == 'carafe' else 0.0002
    for path, parameter in model.named_parameters():
        if 'upsample_modules' in path:
            nn.init.normal_(parameter, std=std)
        elif parameter.dim() > 1:
            nn.init.kaiming_normal_(parameter)
    model.cfg = cfg
    return model.eval()


def check_case(name: str, upsampler: str, folder: Path) -> dict[str, Any]:
    """Export a model with free sizes and compare it in each runtime.

    Args:
        name (str): The model.
        upsampler (str): Its upsampler.
        folder (Path): Where the graphs go, a folder for each runtime.

    Returns:
        dict: By runtime, ``worst`` by shape of the input over all outputs of all graphs, or
        ``error``.
    """
    model = random_model(name, upsampler)

    def in_onnx() -> list[Difference]:
        return export_model(model, folder / 'onnx', size=SIZE, dynamic=True, rounds=1).differences

    def in_openvino() -> list[Difference]:
        # From the file above, since PyTorch's exporter takes longer than all the rest.
        differences: list[Difference] = []
        (folder / 'openvino').mkdir(parents=True, exist_ok=True)
        for part in split_model(model):
            name_outputs(part, SIZE)
            source = folder / 'onnx' / f'{part.name}.onnx'
            if not source.is_file():
                raise ExportError('there is no ONNX file to convert')
            path = folder / 'openvino' / f'{part.name}.xml'
            write_openvino(source, path, half=False)
            graph = open_graph(path, part.outputs)
            differences += compare(part, graph, unseen_inputs(part, True, SIZE))
        require_equal(differences, TOLERANCES['float32'])
        return differences

    def in_ncnn() -> list[Difference]:
        return export_model(model, folder / 'ncnn', to='ncnn', size=SIZE, rounds=1).differences

    result = dict(onnx=_worst(in_onnx), openvino=_worst(in_openvino))
    if name in _IN_NCNN and upsampler in _MEMBERS:
        result['ncnn'] = _worst(in_ncnn)
    return result


def _worst(run: Callable[[], list[Difference]]) -> dict[str, Any]:
    worst: dict[str, float] = {}
    try:
        for difference in run():
            for shape, value in difference.worst.items():
                worst[shape] = max(worst.get(shape, 0.0), value)
    except ExportError as error:
        return dict(error=str(error))
    return dict(worst=worst)


def time_networks(found: dict[str, dict[str, Any]], folders: dict[str, Path], rounds: int) -> None:
    """Time the networks of a model with each upsampler, in both runtimes, all of them in turn.

    Args:
        found (dict): By upsampler what :func:`check_case` returned; median milliseconds are added
            as ``ms`` of each runtime.
        folders (dict[str, Path]): The graphs by upsampler.
        rounds (int): Timed runs of each.
    """
    runs, results = [], []
    for upsampler, case in found.items():
        if any('error' in case[runtime] for runtime in ('onnx', 'openvino')):
            continue
        about = json.loads((folders[upsampler] / 'onnx' / DESCRIPTION).read_text())
        outputs = next(graph['outputs'] for graph in about['graphs'] if graph['name'] == NETWORK)
        _, shape, _ = next(c['worst'] for c in about['check'] if c['part'] == NETWORK)
        image = torch.randn(*map(int, shape.split('x'))).numpy()
        for runtime in ('onnx', 'openvino'):
            path = folders[upsampler] / runtime / f'{NETWORK}{SUFFIXES[runtime]}'
            runs.append(partial(open_graph(path, outputs), image))
            results.append(case[runtime])
    times, _ = measure(runs, rounds, torch.device('cpu'))
    for result, seconds in zip(results, times, strict=True):
        result['ms'] = median_and_quartiles(seconds)['median_ms']


def table(results: dict[str, dict[str, Any]]) -> str:
    """Render the results as Markdown."""
    lines = [
        '| model | upsampler | ONNX Runtime | OpenVINO | ncnn | latency, ORT | latency, OpenVINO |',
        '|---|---|---|---|---|---|---|',
    ]
    for name, found in results.items():
        for upsampler, case in found.items():
            if upsampler == 'stock':
                continue
            cells = [_difference(case.get(runtime)) for runtime in ('onnx', 'openvino', 'ncnn')]
            for runtime in ('onnx', 'openvino'):
                times = [one.get(runtime, {}).get('ms') for one in (case, found.get('stock', {}))]
                cells.append(f'{times[0] / times[1]:.2f}' if all(times) else '')
            lines.append(f'| {" | ".join((name, f"`{upsampler}`", *cells))} |')
    return '\n'.join(lines)


def _difference(run: dict[str, Any] | None) -> str:
    if run is None:
        return ''
    return f'{max(run["worst"].values()):.0e}' if 'worst' in run else 'refused'


def put_table(page: Path, marker: str, text: str) -> None:
    """Write a table between the marker of a page and the marker that ends it."""
    before, start, rest = page.read_text().partition(f'<!-- {marker} -->\n')
    _, end, after = rest.partition(f'<!-- end of {marker} -->')
    page.write_text(f'{before}{start}\n{text}\n\n{end}{after}')


def report(args: argparse.Namespace) -> None:
    """Export what has no graphs yet, time all graphs, and write the file and the page's table."""
    torch.set_num_threads(1)
    made = provenance()
    for package in ('onnx', 'onnxscript', 'onnxruntime', 'openvino', 'ncnn', 'pnnx'):
        made['versions'][package] = metadata.version(package)
    results: dict[str, dict[str, Any]] = {name: {} for name in CONFIGS}
    folders: dict[str, dict[str, Path]] = {name: {} for name in CONFIGS}
    for name, upsampler in cases():
        folder = args.graphs / re.sub(r'\W+', '-', f'{name}-{upsampler}').lower()
        note = folder / 'case.json'
        if not note.is_file():
            case = dict(revision=made['revision']) | check_case(name, upsampler, folder)
            write_json(note, case, finite=False)
            sys.stderr.write(f'{name}, {upsampler}: exported\n')
        results[name][upsampler] = json.loads(note.read_text())
        folders[name][upsampler] = folder
    for name, found in results.items() if args.rounds else ():
        time_networks(found, folders[name], args.rounds)
        sys.stderr.write(f'{name}: timed\n')
    about = dict(
        device=device_name(torch.device('cpu')),
        threads=1,
        rounds=args.rounds,
        latency='median milliseconds of the network alone, batch 2 of 160 x 128 or 160 x 224 '
        'pixels; all upsamplers of a model in both runtimes in turn',
    )
    content = made | about | dict(results=results)
    write_json(args.docs / 'benchmarks' / 'export.json', content, finite=False)
    put_table(args.docs / 'ship_it.md', 'models', table(results))
    sys.stdout.write(f'{table(results)}\n')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line of the reporting tool."""
    parser = argparse.ArgumentParser(
        description='Export the models of the page "Ship it", compare and time them. What has '
        'graphs already is only timed again.'
    )
    parser.add_argument(
        '--graphs',
        type=Path,
        default=Path('work_dirs/export_report'),
        help='where the graphs are and go (default: work_dirs/export_report)',
    )
    parser.add_argument('--docs', type=Path, default=Path('docs'), help='default: docs')
    parser.add_argument(
        '--rounds', type=int, default=15, help='timed runs, 0 for none (default: 15)'
    )
    return parser.parse_args(argv)


main = partial(run_tool, parse_args, report)
