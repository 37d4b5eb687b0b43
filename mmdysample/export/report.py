"""The measurements behind the page "Ship it", one JSON file, a model at a time."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS as REGISTRY
from mmengine.registry import DefaultScope
from torch import nn

from mmdysample.costs.stopwatch import measure, spread
from mmdysample.engine.launch import project_root
from mmdysample.engine.provenance import device_name, provenance
from mmdysample.export.check import compare, unseen_inputs
from mmdysample.export.errors import ExportError
from mmdysample.export.forms import export_form
from mmdysample.export.parts import Part, name_outputs, split_model
from mmdysample.export.runtimes import SUFFIXES, open_graph, write_ncnn, write_onnx, write_openvino

SIZE = (128, 192)
"""Height and width of the images of the exports; the check uses others."""


@dataclass(frozen=True)
class Row:
    """A model of the table.

    Args:
        name (str): What the table calls it.
        config (str): Its config, below ``configs``.
        part (str): Key of the part that upsamples.
        baseline (str): The stock upsampler, for the ratio of latencies.
        extra (tuple[str, ...]): Upsamplers beside the two of every row.
        ncnn (bool): Whether it is taken to ncnn too. Defaults to False.
    """

    name: str
    config: str
    part: str = 'neck'
    baseline: str = 'nearest'
    extra: tuple[str, ...] = ()
    ncnn: bool = False


ROWS = (
    Row(
        'Faster R-CNN R18',
        'scenes/faster-rcnn_r18_fpn-dysample_12e_scenes.py',
        extra=('carafe',),
        ncnn=True,
    ),
    Row(
        'SegFormer-B0',
        'segformer/segformer_mit-b0_dysample-s-plus_8xb2-160k_ade20k-512x512.py',
        'decode_head',
        'bilinear',
        extra=('carafe',),
        ncnn=True,
    ),
    Row('Faster R-CNN R50', 'faster_rcnn/faster-rcnn_r50_fpn-dysample_1x_coco.py'),
    Row('Mask R-CNN R50', 'mask_rcnn/mask-rcnn_r50_fpn-dysample_1x_coco.py'),
    Row('Panoptic FPN R50', 'panoptic_fpn/panoptic-fpn_r50_fpn-dysample_1x_coco.py'),
    Row('RTMDet tiny', 'rtmdet/rtmdet_tiny_dysample_8xb32-300e_coco.py'),
    Row('YOLOX-S', 'yolox/yolox_s_dysample_8xb8-300e_coco.py'),
    Row(
        'SegFormer-B1',
        'segformer/segformer_mit-b1_dysample_8xb2-160k_ade20k-512x512.py',
        'decode_head',
        'bilinear',
    ),
    Row(
        'UPerNet R50',
        'upernet/upernet_r50_dysample-plus_4xb4-80k_ade20k-512x512.py',
        'decode_head',
        'bilinear',
    ),
    Row(
        'DepthFormer Swin-T',
        'depthformer/depthformer_swin-t_dysample_2xb8-38k_nyu-416x544.py',
        'decode_head',
        'bilinear',
    ),
)


def cases() -> list[tuple[Row, str]]:
    """Models and upsamplers: the two members, the baselines of the ratios, then the slow ones."""
    wanted = [(row, kind) for row in ROWS for kind in ('dysample', 'dysample_s_plus')]
    wanted += [(row, row.baseline) for row in ROWS]
    return wanted + [(row, kind) for row in ROWS for kind in row.extra]


def random_model(row: Row, upsampler: str) -> nn.Module:
    """Build a model whose random weights let every layer matter.

    Fresh detection heads answer with a constant, and fresh upsamplers hardly move their samples:
    a wrong graph would pass. So small weights are drawn anew.
    """
    cfg = Config.fromfile(project_root() / 'configs' / row.config)
    cfg.model[row.part].upsample_cfg = dict(type=upsampler)
    _forget_pretrained(cfg.model)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = revert_sync_batchnorm(REGISTRY.build(cfg.model))
    model.init_weights()
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:
            continue
        if 'upsample_modules' in name:
            nn.init.normal_(parameter, std=0.02)
        elif parameter.std() < 0.02:
            nn.init.kaiming_normal_(parameter)
    return model.eval()


def measure_case(row: Row, upsampler: str, rounds: int) -> dict[str, Any]:
    """Export a model to ONNX and OpenVINO with free sizes, compare and time it.

    Returns:
        dict: By runtime, ``worst`` by shape of the input over all outputs of all graphs, and
        ``network_ms``; or ``error``. Also ``pytorch_ms`` of the network.
    """
    model = random_model(row, upsampler)
    result: dict[str, Any] = dict(runtimes={})
    with tempfile.TemporaryDirectory() as folder:
        graphs: dict[str, list[Path]] = {'onnx': [], 'openvino': []}
        parts = split_model(model)
        for part in parts:
            size = part.size or SIZE
            name_outputs(part, torch.randn(1, part.channels, *size))
            path = Path(folder, f'{part.name}.onnx')
            with export_form(model, 'gridsample', True):
                write_onnx(part, torch.randn(2, part.channels, *size), path, 18, True)
            graphs['onnx'].append(path)
            graphs['openvino'].append(path.with_suffix('.xml'))
            write_openvino(path, path.with_suffix('.xml'), half=False)
        inputs = [unseen_inputs(part, True, SIZE) for part in parts]
        for runtime, paths in graphs.items():
            result['runtimes'][runtime] = _check(parts, paths, inputs)
        runs = [_pytorch(parts[0], inputs[0][1])]
        for paths in graphs.values():
            runs.append(_runtime(parts[0], paths[0], inputs[0][1].numpy()))
        if row.ncnn:
            result['runtimes']['ncnn'] = _ncnn(model, parts[0], Path(folder))
        times, _ = measure(runs, rounds, torch.device('cpu'))
    medians = [spread(seconds)['median_ms'] for seconds in times]
    result['pytorch_ms'] = medians[0]
    for runtime, median in zip(graphs, medians[1:], strict=True):
        result['runtimes'][runtime]['network_ms'] = median
    return result


def _check(parts: Sequence[Part], paths: Sequence[Path], inputs: Sequence) -> dict[str, Any]:
    worst: dict[str, float] = {}
    try:
        for part, path, examples in zip(parts, paths, inputs, strict=True):
            graph = open_graph(path, part.outputs, torch.get_num_threads())
            for difference in compare(part, graph, examples):
                for shape, value in difference.worst.items():
                    worst[shape] = max(worst.get(shape, 0.0), value)
    except ExportError as error:
        return dict(error=str(error))
    return dict(worst=worst)


def _ncnn(model: nn.Module, part: Part, folder: Path) -> dict[str, Any]:
    path = folder / f'{part.name}{SUFFIXES["ncnn"]}'
    try:
        with export_form(model, 'gridsample', False):
            write_ncnn(part, torch.randn(1, part.channels, *SIZE), path, half=False)
    except ExportError as error:
        return dict(error=str(error))
    return _check([part], [path], [unseen_inputs(part, False, SIZE)])


def _pytorch(part: Part, x: torch.Tensor) -> Any:
    def run() -> None:
        with torch.inference_mode():
            part.module(x)

    return run


def _runtime(part: Part, path: Path, x: Any) -> Any:
    graph = open_graph(path, part.outputs, torch.get_num_threads())
    return lambda: graph(x)


def _forget_pretrained(config: Any) -> None:
    if not isinstance(config, dict):
        return
    for key in ('init_cfg', 'pretrained'):
        value = config.get(key)
        if isinstance(value, str) or (isinstance(value, dict) and value.type == 'Pretrained'):
            config[key] = None
    for value in config.values():
        _forget_pretrained(value)


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    lines = [
        '| model | upsampler | ONNX Runtime | OpenVINO | ncnn | latency, ORT | latency, OpenVINO |',
        '|---|---|---|---|---|---|---|',
    ]
    for row, upsampler in cases():
        result = report['results'].get(f'{row.name}, {upsampler}')
        if result is None or upsampler == row.baseline:
            continue
        baseline = report['results'].get(f'{row.name}, {row.baseline}')
        cells = [_difference(result, name) for name in ('onnx', 'openvino', 'ncnn')]
        cells += [_ratio(result, baseline, name) for name in ('onnx', 'openvino')]
        lines.append(f'| {" | ".join((row.name, f"`{upsampler}`", *cells))} |')
    return '\n'.join(lines)


def _difference(result: dict[str, Any], runtime: str) -> str:
    run = result.get('runtimes', {}).get(runtime)
    if run is None:
        return 'fails' if 'error' in result else ''
    return f'{max(run["worst"].values()):.0e}' if 'worst' in run else 'fails'


def _ratio(result: dict[str, Any], baseline: dict[str, Any] | None, runtime: str) -> str:
    if baseline is None or 'error' in result or 'error' in baseline:
        return ''
    times = [one['runtimes'][runtime]['network_ms'] for one in (result, baseline)]
    return f'{times[0] / times[1]:.2f}'


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what is missing in the file, write it after each model, and print the table."""
    parser = argparse.ArgumentParser(description='Export the models of the page "Ship it"')
    parser.add_argument('--out', type=Path, default=Path('docs/benchmarks/export.json'))
    parser.add_argument('--rounds', type=int, default=15, help='timed runs (default: 15)')
    parser.add_argument('--again', action='store_true', help='forget what the file holds')
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    report: dict[str, Any] = {}
    if args.out.is_file() and not args.again:
        report = json.loads(args.out.read_text())
    results = report.get('results', {})
    report = provenance() | dict(
        device=device_name(torch.device('cpu')),
        threads=1,
        exported_size=SIZE,
        latency='median of the network alone, batch 2 of 160 x 128 or 160 x 224 pixels, '
        'PyTorch, ONNX Runtime and OpenVINO in turn',
        results=results,
    )
    for package in ('onnx', 'onnxscript', 'onnxruntime', 'openvino', 'ncnn', 'pnnx'):
        report['versions'][package] = metadata.version(package)
    for row, upsampler in cases():
        key = f'{row.name}, {upsampler}'
        if key in results:
            continue
        try:
            results[key] = measure_case(row, upsampler, args.rounds)
        except ExportError as error:
            results[key] = dict(error=str(error))
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(report, indent=1) + '\n')
        sys.stderr.write(f'{key}\n')
    args.out.with_suffix('.md').write_text(table(report) + '\n')
    sys.stdout.write(f'{table(report)}\n')
