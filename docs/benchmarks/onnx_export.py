"""Export every upsampler to ONNX and compare ONNX Runtime's result with PyTorch's.

Run from the repository root: python docs/benchmarks/onnx_export.py
It needs the extra `export` (onnx, onnxscript, onnxruntime). Each type is exported with fixed sizes
and with batch, height and width free, through both of PyTorch's exporters, at opset 18 and with
random weights; what is written to onnx_export.json beside this file is the largest difference
relative to the largest value, for the sizes of the export and, where they are free, for others
too. A text instead says what failed. The table goes into docs/ship_it.md.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import tempfile
import warnings
from importlib import metadata
from pathlib import Path

import onnxruntime
import torch
from torch import Tensor

from mmdysample import build_upsampler, upsampler_names
from mmdysample.engine.provenance import provenance
from mmdysample.export.report import put_table

CHANNELS, OPSET = 64, 18
EXPORTED, OTHER = (2, 9, 13), (1, 6, 7)  # batch, height, width
COLUMNS = {
    'fixed': (True, False),
    'free': (True, True),
    'fixed, tracer': (False, False),
    'free, tracer': (False, True),
}
"""What is tried: whether by ``dynamo=True``, and whether with free sizes."""


def inputs(guided: bool, batch: int, height: int, width: int) -> tuple[Tensor, ...]:
    """A feature, and a guide where one is needed."""
    x = torch.randn(batch, CHANNELS, height, width)
    return (x, torch.randn(batch, CHANNELS, 2 * height, 2 * width)) if guided else (x,)


def options(guided: bool, dynamo: bool, free: bool) -> dict:
    """What torch.onnx.export has to be told about the sizes."""
    names = ['x', 'guide'] if guided else ['x']
    if not free:
        return dict(input_names=names)
    if not dynamo:
        axes = {0: 'batch', 2: 'height', 3: 'width'}
        outputs = dict(output_names=['y'], dynamic_axes=dict.fromkeys([*names, 'y'], axes))
        return dict(input_names=names) | outputs
    batch = torch.export.Dim('batch')
    height, width = (torch.export.Dim(name, min=2) for name in ('height', 'width'))
    sizes = ({0: batch, 2: height, 3: width}, {0: batch, 2: 2 * height, 3: 2 * width})
    return dict(input_names=names, dynamic_shapes=sizes[: len(names)])


def difference(name: str, dynamo: bool, free: bool, path: Path) -> float | str:
    """Export one type, run it, and compare."""
    upsample = build_upsampler(name, CHANNELS).eval()
    for parameter in upsample.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    guided = upsample.guided
    examples = [inputs(guided, *EXPORTED)] + [inputs(guided, *OTHER)] * free
    sizes = options(guided, dynamo, free)
    try:
        torch.onnx.export(
            upsample, examples[0], path, dynamo=dynamo, verbose=False, opset_version=OPSET, **sizes
        )
        session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
        worst = 0.0
        for example in examples:
            with torch.no_grad():
                wanted = upsample(*example)
            feed = {
                port.name: t.numpy() for port, t in zip(session.get_inputs(), example, strict=True)
            }
            got = torch.from_numpy(session.run(None, feed)[0])
            worst = max(worst, float((got - wanted).abs().max() / wanted.abs().max()))
    except Exception as error:  # the report is of what fails, whatever it is
        first_line = re.sub(r'\x1b\[\d+m', '', str(error)).strip().splitlines()[0]
        return f'{type(error).__name__}: {first_line[:200]}'
    return worst


def table(types: dict[str, dict[str, float | str]]) -> str:
    """The result as Markdown."""
    lines = [f'| type | {" | ".join(COLUMNS)} |', '|---' * (1 + len(COLUMNS)) + '|']
    for name, results in types.items():
        cells = (f'{r:.0e}' if isinstance(r, float) else r for r in results.values())
        lines.append(f'| `{name}` | {" | ".join(cells)} |')
    return '\n'.join(lines)


def main() -> None:
    """Try all types and write the file and the page's table."""
    torch.manual_seed(0)
    warnings.simplefilter('ignore')
    logging.disable(logging.ERROR)
    report = provenance()
    for package in ('onnx', 'onnxscript', 'onnxruntime'):
        report['versions'][package] = metadata.version(package)
    report.update(channels=CHANNELS, opset=OPSET, exported=EXPORTED, other=OTHER, types={})
    with tempfile.TemporaryDirectory() as folder:
        for name in upsampler_names():
            path = Path(folder, f'{name}.onnx')
            results = {
                column: difference(name, dynamo, free, path)
                for column, (dynamo, free) in COLUMNS.items()
            }
            report['types'][name] = results
            sys.stdout.write(f'{name}: {results}\n')
    Path(__file__).with_suffix('.json').write_text(json.dumps(report, indent=1) + '\n')
    put_table(Path(__file__).parents[1] / 'ship_it.md', 'upsamplers', table(report['types']))


if __name__ == '__main__':
    main()
