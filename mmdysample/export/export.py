"""Export of a whole model: write it, run it, compare it, and keep it only if it is right."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from mmdysample.engine.provenance import provenance
from mmdysample.export.check import (
    TOLERANCES,
    Difference,
    compare,
    latency,
    require_equal,
    unseen_inputs,
)
from mmdysample.export.errors import ExportError
from mmdysample.export.forms import SAMPLINGS, export_form
from mmdysample.export.parts import NETWORK, Part, name_outputs, split_model
from mmdysample.export.precision import (
    calibration_images,
    channels_are_swapped,
    sampling_nodes,
    to_half,
    to_int8,
)
from mmdysample.export.runtimes import (
    DESCRIPTION,
    RUNTIMES,
    SUFFIXES,
    check_runtime,
    open_graph,
    write_ncnn,
    write_onnx,
    write_openvino,
)

OPSETS = range(16, 24)
"""Versions of ONNX's operators: from the one that brought GridSample to PyTorch's newest."""


@dataclass
class Export:
    """A model that was exported, with what its check saw.

    Args:
        folder (Path): Where the graphs are.
        differences (list[Difference]): Of every output of every graph.
        latencies (dict[str, dict[str, float]]): Milliseconds of PyTorch and of the runtime, by
            graph.
        tolerance (float): What a difference may be.
    """

    folder: Path
    differences: list[Difference]
    latencies: dict[str, dict[str, float]]
    tolerance: float

    def table(self) -> str:
        """Write a line for each output, then one for each graph."""
        rows = [('graph', 'output', 'worst difference', 'at input')]
        for difference in self.differences:
            largest = f'{difference.largest:.1e}'
            rows.append((difference.part, difference.output, largest, difference.shape))
        lines = _align(rows)
        rows = [('graph', 'PyTorch', 'runtime', 'ratio')]
        for part, times in self.latencies.items():
            pytorch, runtime = times['pytorch_ms'], times['runtime_ms']
            milliseconds = (f'{pytorch:.1f} ms', f'{runtime:.1f} ms')
            rows.append((part, *milliseconds, f'{runtime / pytorch:.2f}'))
        return '\n'.join([*lines, '', *_align(rows)])


def export_model(
    model: nn.Module,
    folder: str | Path,
    *,
    to: str = 'onnx',
    size: tuple[int, int],
    dynamic: bool = False,
    sampling: str = 'gridsample',
    opset: int = 18,
    half: bool = False,
    calibration: str | Path | None = None,
    tolerance: float | None = None,
    rounds: int = 5,
) -> Export:
    """Export a detector or a segmentor and compare every graph with PyTorch.

    The folder appears when everything in it was found right; until then, and after any error,
    what was there before is untouched. It holds a graph for each part (:func:`split_model`) and
    ``model.json``: config, classes, normalisation, outputs, options, versions and the check.

    Args:
        model (nn.Module): A detector of MMDetection or a segmentor of MMSegmentation, in
            evaluation mode, with ``cfg`` and ``dataset_meta`` as their ``init_*`` functions set.
        folder (str or Path): Where to write; an earlier export there is replaced.
        to (str): ``'onnx'``, ``'openvino'`` or ``'ncnn'``. Defaults to ``'onnx'``.
        size (tuple[int, int]): Height and width in pixels of the image of the export.
        dynamic (bool): Leave batch, height and width open; not for ncnn. Defaults to False.
        sampling (str): DySample's form: ``'gridsample'``, or ``'gather'`` for runtimes without
            that operator. Defaults to ``'gridsample'``.
        opset (int): Version of ONNX's operators; ncnn has none. Defaults to 18.
        half (bool): Store in float16, DySample's sampling excepted. Defaults to False.
        calibration (str or Path, optional): A folder of images by which to choose the ranges of
            int8. Defaults to None: no int8.
        tolerance (float, optional): Largest difference as a fraction of an output's largest
            value. Defaults to None: by precision, :data:`mmdysample.export.check.TOLERANCES`.
        rounds (int): Timed runs. Defaults to 5.

    Returns:
        Export: The folder, the differences and the latencies.

    Raises:
        ExportError: If an option does not fit, or the model cannot be exported.
        MissingRuntimeError: If a package is not installed.
        DifferingOutputsError: If a graph computes something else than PyTorch.
    """
    precision = 'int8' if calibration else 'float16' if half else 'float32'
    options = _Options(to, tuple(size), dynamic, sampling, opset, precision)
    folder = Path(folder)
    if half and calibration:
        raise ExportError('half and int8 exclude each other')
    if calibration and not Path(calibration).is_dir():
        raise ExportError(f'calibration folder {calibration} does not exist')
    if folder.exists() and not (folder / DESCRIPTION).is_file():
        raise ExportError(f'{folder} exists and is no earlier export, so it is not replaced')
    _check(options)
    tolerance = TOLERANCES[precision] if tolerance is None else tolerance
    model = model.eval().cpu()
    parts = split_model(model)
    export = Export(folder, [], {}, tolerance)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix='.export-', dir=folder.parent, ignore_cleanup_errors=True
    ) as space:
        draft = Path(space, 'new')
        draft.mkdir()
        images = calibration_images(model, calibration, size) if calibration else []
        for part in parts:
            name_outputs(part, options.size)
            path = draft / (part.name + SUFFIXES[to])
            with export_form(model, sampling, dynamic):
                _write(part, path, options, images)
            graph = open_graph(path, part.outputs)
            inputs = unseen_inputs(part, dynamic, options.size, images)
            export.differences += compare(part, graph, inputs)
            require_equal(export.differences, tolerance)
            export.latencies[part.name] = latency(part, graph, inputs[1], rounds)
            del graph
        text = json.dumps(_describe(model, parts, export, options), indent=1)
        (draft / DESCRIPTION).write_text(text + '\n')
        if to == 'onnx':
            _embed(parts, draft, text)
        if folder.exists():
            folder.rename(Path(space, 'old'))
        draft.rename(folder)
    return export


@dataclass(frozen=True)
class _Options:
    """How a model is exported; ``model.json`` says so too."""

    to: str
    size: tuple[int, int]
    dynamic: bool
    sampling: str
    opset: int
    precision: str


def _check(options: _Options) -> None:
    """Raise ExportError if an option cannot be met."""
    to, size, sampling, opset = options.to, options.size, options.sampling, options.opset
    check_runtime(to)
    if to == 'ncnn' and (options.dynamic or options.precision == 'int8'):
        raise ExportError('ncnn graphs have fixed sizes and no int8: leave out dynamic and int8')
    if sampling not in SAMPLINGS:
        raise ExportError(f'sampling must be one of {tuple(SAMPLINGS)}, got {sampling!r}')
    if to != 'ncnn' and opset not in OPSETS:
        raise ExportError(f'opset must be {OPSETS[0]} to {OPSETS[-1]}, got {opset}')
    if len(size) != 2 or min(size) < 32:
        raise ExportError(f'size must be a height and a width of at least 32, got {size}')


def _write(part: Part, path: Path, options: _Options, images: list[np.ndarray]) -> None:
    """Write the graph of a part for its runtime."""
    size, free, half = options.size, options.dynamic, options.precision == 'float16'
    if options.to == 'ncnn':
        write_ncnn(part, part.example(size, free=False), path, half)
        return
    # An exporter takes a 1 for a constant.
    batch = 2 if free or part.name != NETWORK else 1
    written = path.parent / f'{part.name}.onnx'
    write_onnx(part, part.example(size, free, batch), written, options.opset, free)
    if options.precision != 'float32':  # what lower precision hides is looked for before
        graph = open_graph(written, part.outputs)
        differences = compare(part, graph, unseen_inputs(part, free, size))
        require_equal(differences, TOLERANCES['float32'])
    if half and options.to == 'onnx':
        to_half(written, sampling_nodes(part, written))
    if images and part.name == NETWORK:  # pictures show no ranges of the regions' features
        to_int8(written, sampling_nodes(part, written), images)
    if options.to == 'openvino':
        write_openvino(written, path, half)
        written.unlink()


def _describe(
    model: nn.Module, parts: list[Part], export: Export, options: _Options
) -> dict[str, Any]:
    """Write ``model.json``: how to feed the graphs, their origin, and how right they are."""
    preprocessor = model.data_preprocessor
    normalised = hasattr(preprocessor, 'mean')
    versions = {name: metadata.version(name) for name in ('torch', *RUNTIMES[options.to])}
    return dict(
        format=1,
        **asdict(options),
        input=dict(
            layout='NCHW',
            dtype='float32',
            channels='RGB' if channels_are_swapped(preprocessor) else 'BGR',
            mean=preprocessor.mean.flatten().tolist() if normalised else None,
            std=preprocessor.std.flatten().tolist() if normalised else None,
        ),
        graphs=[
            dict(name=part.name, file=part.name + SUFFIXES[options.to], outputs=part.outputs)
            for part in parts
        ],
        dataset_meta=getattr(model, 'dataset_meta', None),
        tolerance=export.tolerance,
        check=[asdict(difference) for difference in export.differences],
        latency_ms=export.latencies,
        made=provenance() | dict(versions=versions),
        config=model.cfg.pretty_text,
    )


def _embed(parts: list[Part], draft: Path, text: str) -> None:
    """Write the description into the ONNX files too, which people move about alone."""
    import onnx

    for part in parts:
        path = draft / (part.name + SUFFIXES['onnx'])
        graph = onnx.load(path)
        onnx.helper.set_model_props(graph, {'mmdysample': text})
        onnx.save(graph, path)


def _align(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        '  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
