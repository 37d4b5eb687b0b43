"""What float16 and int8 do to the positions of DySample in an exported detector.

Run from the repository root, with a trained checkpoint and a folder of pictures:

    python docs/benchmarks/export_precision.py CONFIG CHECKPOINT PICTURES

Positions are read from the graph, where they enter GridSample, and counted in input pixels of
their layer. The picture is brought to 256 x 1024 pixels, so that the largest of the three maps
has 128 columns. Results go to export_precision.json beside this file.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from mmengine.config import Config

from mmdysample.engine.provenance import provenance
from mmdysample.export.check import relative_difference
from mmdysample.export.command import load_model
from mmdysample.export.forms import export_form
from mmdysample.export.parts import name_outputs, split_model
from mmdysample.export.precision import calibration_images, sampling_nodes, to_half, to_int8
from mmdysample.export.runtimes import write_onnx

SIZE = (256, 1024)


def run(path: Path, image: np.ndarray, outputs: list[str]) -> tuple[list, list]:
    """Outputs of a graph, and the positions of its layers in pixels."""
    graph = onnx.load(path)
    layers = [node for node in graph.graph.node if node.op_type == 'GridSample']
    known = {port.name for port in graph.graph.output}
    for node in layers:
        for name in node.input[:2]:
            if name not in known:
                graph.graph.output.append(onnx.ValueInfoProto(name=name))
                known.add(name)
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    names = [*outputs, *(name for node in layers for name in node.input[:2])]
    values = session.run(names, {'image': image})
    positions = []
    for feature, grid in zip(values[len(outputs) :: 2], values[len(outputs) + 1 :: 2], strict=True):
        spans = np.array(feature.shape[:1:-1]) - 1
        positions.append((grid.astype(np.float64) + 1) / 2 * spans)
    return values[: len(outputs)], positions


def main() -> None:
    """Measure five graphs of one network."""
    config, checkpoint, pictures = sys.argv[1:]
    model = load_model(Config.fromfile(config), checkpoint)
    part = split_model(model)[0]
    images = calibration_images(model, pictures, SIZE, most=16)
    name_outputs(part, SIZE)
    report = provenance() | dict(size=SIZE, graphs={})
    for package in ('onnx', 'onnxscript', 'onnxruntime'):
        report['versions'][package] = metadata.version(package)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'float32.onnx')
        with export_form(model, 'gridsample', free=False):
            write_onnx(part, torch.from_numpy(images[0]), path, 18, free=False)
        kept = sampling_nodes(part, path)
        wanted, at = run(path, images[-1], part.outputs)
        for precision in ('float16', 'int8'):
            for lowered, nodes in (('sampling in float32', kept), ('everything', [])):
                copy = shutil.copy(path, Path(folder, 'lower.onnx'))
                if precision == 'float16':
                    to_half(copy, nodes)
                else:
                    to_int8(copy, nodes, images[:-1])
                outputs, positions = run(copy, images[-1], part.outputs)
                moved = [np.abs(a - b) for a, b in zip(positions, at, strict=True)]
                report['graphs'][f'{precision}, {lowered}'] = dict(
                    positions=[dict(mean=float(m.mean()), worst=float(m.max())) for m in moved],
                    outputs=max(map(relative_difference, outputs, wanted)),
                )
    text = json.dumps(report, indent=1)
    Path(__file__).with_suffix('.json').write_text(text + '\n')
    sys.stdout.write(json.dumps(report['graphs'], indent=1) + '\n')


if __name__ == '__main__':
    main()
