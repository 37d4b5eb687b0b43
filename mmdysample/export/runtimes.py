"""The runtimes: how a graph is written for each, and how it is run there."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from mmdysample.export.errors import ExportError, MissingRuntimeError
from mmdysample.export.parts import NETWORK, Part

RUNTIMES = {
    'onnx': ('onnx', 'onnxscript', 'onnxruntime'),
    'openvino': ('onnx', 'onnxscript', 'openvino'),
    'ncnn': ('pnnx', 'ncnn'),
}
"""Packages that writing for a runtime and running there need."""

SUFFIXES = {'onnx': '.onnx', 'openvino': '.xml', 'ncnn': '.ncnn.param'}
"""What the name of a graph's file ends in."""

DESCRIPTION = 'model.json'
"""Name of the file beside the graphs that says what they are."""

Graph = Callable[[np.ndarray], list[np.ndarray]]


def check_runtime(runtime: str) -> None:
    """Raise unless all packages of a runtime are installed.

    Raises:
        ExportError: If there is no runtime of that name.
        MissingRuntimeError: If a package is missing.
    """
    if runtime not in RUNTIMES:
        raise ExportError(f'to must be one of {tuple(RUNTIMES)}, got {runtime!r}')
    for package in RUNTIMES[runtime]:
        _import(package)


def write_onnx(part: Part, example: Tensor, path: Path, opset: int, free: bool) -> None:
    """Write a part as an ONNX file.

    Args:
        part (Part): The graph.
        example (Tensor): An input; of a batch of at least 2 where sizes are free, since the
            exporter takes a 1 for a constant.
        path (Path): The file.
        opset (int): Version of ONNX's operators.
        free (bool): Leave batch, height and width open; the number of regions always is.

    Raises:
        ExportError: If the exporter cannot follow the part.
    """
    dynamic = torch.export.Dim.DYNAMIC
    axes = {} if part.name == NETWORK else {0: dynamic}
    if free and part.name == NETWORK:
        axes = {0: dynamic, 2: dynamic, 3: dynamic}
    with quiet():
        try:
            torch.onnx.export(
                part.module,
                (example,),
                path,
                dynamo=True,
                opset_version=opset,
                input_names=[part.input],
                output_names=part.outputs,
                dynamic_shapes=(axes,) if axes else None,
                external_data=False,
                verbose=False,
            )
        except Exception as error:  # whatever stops the exporter
            raise ExportError(
                f'PyTorch cannot export the {part.name} to ONNX: {_reason(error)}'
            ) from error
    # Where the exporter cannot lower the version it says so in its log and writes the higher one.
    imports = _import('onnx').load(path, load_external_data=False).opset_import
    written = next(entry.version for entry in imports if not entry.domain)
    if written != opset:
        raise ExportError(f'PyTorch can export the {part.name} to opset {written}, not to {opset}')


def write_openvino(onnx_path: Path, path: Path, half: bool) -> None:
    """Convert an ONNX file to OpenVINO's format.

    Args:
        onnx_path (Path): The ONNX file.
        path (Path): The ``.xml`` file; the weights go to the ``.bin`` beside it.
        half (bool): Store weights in float16.
    """
    openvino = _import('openvino')
    openvino.save_model(openvino.convert_model(onnx_path), path, compress_to_fp16=half)


def write_ncnn(part: Part, example: Tensor, path: Path, half: bool) -> None:
    """Convert a part to ncnn's format through pnnx, with the sizes of the example.

    Args:
        part (Part): The graph.
        example (Tensor): An input of one image.
        path (Path): The ``.ncnn.param`` file; the weights go to the ``.ncnn.bin`` beside it.
        half (bool): Store weights in float16.

    Raises:
        ExportError: If pnnx writes no graph, or one with operators that ncnn does not have.
    """
    pnnx = _import('pnnx')
    stem = path.name.removesuffix(SUFFIXES['ncnn'])
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, quiet():
        traced = os.path.join(folder, f'{stem}.pt')
        try:
            pnnx.export(part.module, traced, (example,), fp16=half, check_trace=False)
        except Exception as error:
            raise ExportError(f'pnnx cannot convert the {part.name}: {_reason(error)}') from error
        written = Path(folder, f'{stem}.ncnn.param')
        if not written.is_file():
            raise ExportError(f'pnnx wrote no ncnn graph for the {part.name}')
        unknown = [
            line.split()[0]
            for line in written.read_text().splitlines()[2:]
            if line.startswith(('aten::', 'prim::', 'pnnx.', 'torch.', 'F.', 'nn.', 'Tensor.'))
        ]
        if unknown:
            raise ExportError(
                f'ncnn has no {", ".join(sorted(set(unknown)))}, which the {part.name} needs'
            )
        os.replace(written, path)
        os.replace(written.with_suffix('.bin'), path.with_suffix('.bin'))


def open_graph(path: Path, outputs: Sequence[str], threads: int | None = None) -> Graph:
    """Load a graph into its runtime, on the CPU and in full precision.

    Args:
        path (Path): A file that a writer of this module made.
        outputs (Sequence[str]): Names of the outputs, in order.
        threads (int, optional): Threads that the runtime may use. Defaults to PyTorch's number.

    Returns:
        Callable: From an input ``(N, C, H, W)``, float32, to the outputs in order.

    Raises:
        ExportError: If the runtime cannot load the file.
    """
    (runtime,) = (name for name, suffix in SUFFIXES.items() if path.name.endswith(suffix))
    opened = {'onnx': _open_onnx, 'openvino': _open_openvino, 'ncnn': _open_ncnn}[runtime]
    try:
        return opened(path, outputs, threads or torch.get_num_threads())
    except MissingRuntimeError:
        raise
    except Exception as error:  # each runtime has its own
        raise ExportError(f'{runtime} cannot load {path.name}: {_reason(error)}') from error


def _open_onnx(path: Path, outputs: Sequence[str], threads: int) -> Graph:
    onnxruntime = _import('onnxruntime')
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # errors come as exceptions too
    session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
    (port,) = session.get_inputs()
    return lambda x: session.run(list(outputs), {port.name: x})


def _open_openvino(path: Path, outputs: Sequence[str], threads: int) -> Graph:
    openvino = _import('openvino')
    # Without the hint a CPU that can multiply bfloat16 does.
    config = {'INFERENCE_PRECISION_HINT': 'f32', 'INFERENCE_NUM_THREADS': threads}
    network = openvino.Core().compile_model(path, 'CPU', config)
    request = network.create_infer_request()
    ports = [network.output(name) for name in outputs]

    def run(x: np.ndarray) -> list[np.ndarray]:
        results = request.infer([x])
        return [results[port].copy() for port in ports]

    return run


def _open_ncnn(path: Path, outputs: Sequence[str], threads: int) -> Graph:
    ncnn = _import('ncnn')
    net = ncnn.Net()
    net.opt.num_threads = threads
    for option in ('fp16_packed', 'fp16_storage', 'fp16_arithmetic', 'bf16_storage'):
        setattr(net.opt, f'use_{option}', False)
    if net.load_param(str(path)) or net.load_model(str(path.with_suffix('.bin'))):
        raise RuntimeError('the file is damaged')

    def run(x: np.ndarray) -> list[np.ndarray]:
        images = []
        for image in x:
            extractor = net.create_extractor()
            extractor.input('in0', ncnn.Mat(np.ascontiguousarray(image)))
            results = []
            for index in range(len(outputs)):
                status, result = extractor.extract(f'out{index}')
                if status:
                    raise RuntimeError(f'ncnn failed with status {status}')
                values = np.array(result)
                # Maps have three axes here; a vector comes with a first axis that it does not have.
                results.append(values[0] if values.ndim == 2 else values)
            images.append(results)
        return [np.stack(results) for results in zip(*images, strict=True)]

    return run


def _import(package: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingRuntimeError(
            f"the package {package} is not installed; pip install 'mmdysample[export]' brings it"
        ) from error


def _reason(error: BaseException) -> str:
    """Take the first line of an error, without the colours of a terminal."""
    cause = error.__cause__ or error
    lines = str(cause).replace('\x1b[31m', '').replace('\x1b[0m', '').strip().splitlines()
    return f'{type(cause).__name__}: {lines[0][:300]}' if lines else type(cause).__name__


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporters' remarks, which are for their own developers."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    sys.stdout.flush()
    # pnnx is a program of its own, which writes to the descriptors of this process.
    kept = {descriptor: os.dup(descriptor) for descriptor in (1, 2)}
    with open(os.devnull, 'wb') as nowhere:
        for descriptor in kept:
            os.dup2(nowhere.fileno(), descriptor)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter('ignore')
            yield
    finally:
        for descriptor, copy in kept.items():
            os.dup2(copy, descriptor)
            os.close(copy)
        logging.disable(level)
