"""Half precision and int8 for ONNX graphs, with DySample's sampling left in float32."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.utils import scandir
from torch import nn

from mmdysample.export.errors import ExportError
from mmdysample.export.parts import Part
from mmdysample.export.runtimes import quiet
from mmdysample.upsamplers import DySample

_PICTURES = ('.jpg', '.jpeg', '.png', '.bmp')
_QUANTISED = ('Conv', 'MatMul', 'Gemm')
_SCOPES = 'pkg.torch.onnx.name_scopes'
"""Where the exporter notes the modules that a node comes from, the outermost first."""


def sampling_nodes(part: Part, path: Path) -> list[str]:
    """Name the nodes of a graph that come from DySample: projections, positions and sampling.

    Args:
        part (Part): The graph's origin.
        path (Path): The ONNX file, as PyTorch's exporter wrote it.

    Returns:
        list[str]: Node names.
    """
    import onnx

    samplers = {name for name, m in part.module.named_modules() if isinstance(m, DySample)}
    return [
        node.name
        for node in onnx.load(path).graph.node
        for entry in node.metadata_props
        if entry.key == _SCOPES and samplers.intersection(ast.literal_eval(entry.value))
    ]


def to_half(path: Path, kept: Sequence[str]) -> None:
    """Turn the weights and the arithmetic of an ONNX file to float16; input and outputs stay.

    Args:
        path (Path): The file; it is replaced.
        kept (Sequence[str]): Nodes that stay in float32.
    """
    import onnx
    from onnxruntime.transformers import float16

    graph = float16.convert_float_to_float16(
        onnx.load(path), keep_io_types=True, node_block_list=list(kept)
    )
    onnx.save(graph, path)


def to_int8(path: Path, kept: Sequence[str], images: Sequence[np.ndarray]) -> None:
    """Quantise convolutions and matrix products of an ONNX file to int8, one scale a channel.

    Args:
        path (Path): The file; it is replaced.
        kept (Sequence[str]): Nodes that stay in float32.
        images (Sequence[np.ndarray]): Inputs ``(1, 3, H, W)`` that show the ranges of the maps.
    """
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.feeds = iter({'image': x} for x in images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.feeds, None)

    with quiet():  # it recommends a preparation that symbolic sizes break
        quantization.quantize_static(
            path,
            path,
            Reader(),
            op_types_to_quantize=list(_QUANTISED),
            nodes_to_exclude=list(kept),
            per_channel=True,
        )


def calibration_images(
    model: nn.Module, folder: str | Path, size: tuple[int, int], most: int = 32
) -> list[np.ndarray]:
    """Read pictures as the network wants them.

    Args:
        model (nn.Module): Its data preprocessor says how to normalise.
        folder (str or Path): Where the pictures are.
        size (tuple[int, int]): Height and width to bring them to.
        most (int): The first so many are read. Defaults to 32.

    Returns:
        list[np.ndarray]: Each ``(1, 3, *size)``, float32.

    Raises:
        ExportError: If the folder holds no picture.
    """
    import mmcv

    names = sorted(scandir(folder, _PICTURES, case_sensitive=False))
    if not names:
        raise ExportError(f'calibration folder {folder} holds no picture ({", ".join(_PICTURES)})')
    images = []
    for name in names[:most]:
        picture = mmcv.imresize(mmcv.imread(Path(folder, name)), size[::-1])
        data = dict(inputs=[torch.from_numpy(picture).permute(2, 0, 1)], data_samples=[])
        image = model.data_preprocessor(data, training=False)['inputs']
        images.append(image[..., : size[0], : size[1]].numpy())  # it may have padded
    return images


def channels_are_swapped(preprocessor: nn.Module) -> bool:
    """Tell whether a preprocessor turns the BGR of picture files into RGB."""
    names = ('_channel_conversion', 'channel_conversion')
    return any(getattr(preprocessor, name, False) for name in names)
