"""Conversion of checkpoints of the authors' MMDetection forks, and of DepthFormer's toolbox.

The forks keep their upsamplers where :class:`UpsampleFPN` does, ``neck.upsample_modules.*``, so
most weights fit by name. What differs: the metadata of MMDetection 2.x; prefixes of data-parallel
training; buffers that only one side stores; and in the weights behind the published "+32.7K", one
module more than the pyramid has steps, which was built and never used.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import Tensor, nn

from mmdysample.engine.build import build_model, dataset_meta
from mmdysample.engine.checkpoint import load_from_local, load_weights, save_whole, weights_of
from mmdysample.engine.errors import RefusedCheckpointError, UsageError
from mmdysample.engine.launch import mistakes_explained, read_config, run_tool
from mmdysample.version import __version__

_UPSAMPLER = re.compile(r'^(neck\.upsample_modules\.)(\d+)\.')
#: Buffers that hold no learned value, so that a fresh model's may stand in.
_CONSTANTS = ('init_pos', 'num_batches_tracked')
#: Normalisation of the input: the config says it.
_SAID_BY_CONFIG = 'data_preprocessor.'


@dataclass
class Conversion:
    """A converted state and what was done to it.

    Attributes:
        state_dict (dict[str, Tensor]): What the model of the config loads with ``strict=True``.
        renamed (dict[str, str]): Old name to new name.
        dropped (dict[str, str]): Old name to the reason.
        filled (list[str]): Constants that the source lacked, taken from a fresh model.
        added (list[str]): Parameters that the model of the config has only with these weights,
            the biases of the dynamic scope.
    """

    state_dict: dict[str, Tensor]
    renamed: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    filled: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)

    def report(self) -> str:
        """Write one line for each change."""
        lines = [f'{len(self.state_dict)} tensors written']
        lines += [f'renamed  {old} -> {new}' for old, new in self.renamed.items()]
        lines += [f'dropped  {name}: {reason}' for name, reason in self.dropped.items()]
        lines += [f'filled   {name}: missing, constant' for name in self.filled]
        lines += [f'kept     {name}: added to the model on loading' for name in self.added]
        return '\n'.join(lines)


def convert_state_dict(
    source: Mapping[str, Tensor], model: nn.Module, unused: int | None = None
) -> Conversion:
    """Make the weights of a fork fit a model of ours.

    Args:
        source (Mapping[str, Tensor]): The fork's state.
        model (nn.Module): Built from our config; the weights are loaded into it.
        unused (int, optional): Index of an upsampler that the fork never used. Defaults to None:
            where the source has too many, those whose biases are all exactly zero, which a bias
            is before its first update and never after.

    Returns:
        Conversion: The state and the changes.

    Raises:
        RefusedCheckpointError: If a weight is missing, left over or of another shape, or if it
            cannot be told which upsampler is unused.
    """
    kept: dict[str, Tensor] = {}
    conversion = Conversion(state_dict={})
    plain = {key.removeprefix('module.'): key for key in source}
    numbers = _renumbered({key: source[old] for key, old in plain.items()}, model, unused)
    for key, old in plain.items():
        match = _UPSAMPLER.match(key)
        number = numbers[int(match[2])] if match else None
        if match and number is None:
            conversion.dropped[old] = 'its upsampler was never used'
            continue
        if key.startswith(_SAID_BY_CONFIG):
            conversion.dropped[old] = 'the config says it'
            continue
        if match:
            key = f'{match[1]}{number}.{key[match.end() :]}'
        if key != old:
            conversion.renamed[old] = key
        kept[key] = source[old]

    before = set(model.state_dict())
    load_weights(model, kept, may_lack=lambda key: key.endswith(_CONSTANTS))
    conversion.state_dict = dict(model.state_dict())
    conversion.filled = [key for key in conversion.state_dict if key not in kept]
    conversion.added = sorted(set(conversion.state_dict) - before)
    return conversion


def convert_checkpoint(
    config: str, source: str, target: str, unused: int | None = None
) -> Conversion:
    """Convert a checkpoint file.

    Args:
        config (str): Our config of the same model.
        source (str): The fork's checkpoint, opened with the safe loader only.
        target (str): Where to write; it appears whole or not at all.
        unused (int, optional): As for :func:`convert_state_dict`.

    Returns:
        Conversion: What was written and done.

    Raises:
        UsageError: If a file does not exist, source and target are one file, or the checkpoint
            is refused.
    """
    if os.path.realpath(source) == os.path.realpath(target):
        raise UsageError(f'{target} is the source: write to another file')
    checkpoint = load_from_local(source, map_location='cpu')
    cfg = read_config(config)
    state = weights_of(checkpoint)
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise RefusedCheckpointError('the file holds no state_dict of tensors')
    with mistakes_explained():
        model = build_model(cfg)
    conversion = convert_state_dict(state, model, unused)
    meta = _metadata(checkpoint.get('meta') or {}, cfg)
    digest = hashlib.sha256(Path(source).read_bytes()).hexdigest()
    meta['converted_from'] = dict(name=Path(source).name, sha256=digest)
    save_whole(dict(meta=meta, state_dict=conversion.state_dict), target)
    return conversion


def _renumbered(
    source: Mapping[str, Tensor], model: nn.Module, unused: int | None
) -> dict[int, int | None]:
    """Map the source's upsampler indices to the model's, in order; None for unused ones."""
    biases: dict[int, list[Tensor]] = {}
    for key, value in source.items():
        match = _UPSAMPLER.match(key)
        if match:
            found = biases.setdefault(int(match[2]), [])
            found += [value] if key.endswith('.bias') else []
    wanted = {int(m[2]) for m in map(_UPSAMPLER.match, model.state_dict()) if m}
    surplus = len(biases) - len(wanted)
    if unused is not None:
        left_out = {unused}
    elif surplus > 0:
        left_out = {i for i, found in biases.items() if found and not any(b.any() for b in found)}
    else:
        left_out = set()
    if len(left_out) != max(surplus, 0) or not left_out <= set(biases):
        raise RefusedCheckpointError(
            f'the checkpoint has upsamplers {sorted(biases)}, the config {sorted(wanted)}, and '
            f'unused are {sorted(left_out)}: name the unused one with --unused-upsampler'
        )
    used = sorted(set(biases) - left_out)
    return dict.fromkeys(left_out) | dict(zip(used, sorted(wanted), strict=False))


def _metadata(meta: Mapping[str, Any], cfg: Config) -> dict[str, Any]:
    """Make the metadata of MMDetection 3.x: classes and colours, versions, and the config."""
    old = {key: meta[key] for key in ('CLASSES', 'PALETTE') if meta.get(key)}
    known = dataset_meta(cfg, {**old, **(meta.get('dataset_meta') or {})})
    trained = {key: meta[key] for key in ('epoch', 'iter', 'mmdet_version') if key in meta}
    return dict(
        dataset_meta=known, cfg=cfg.pretty_text, mmdysample_version=__version__, trained=trained
    )


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line of the conversion tool."""
    parser = argparse.ArgumentParser(
        description='Convert a checkpoint of the DySample authors or of DepthFormer for our configs'
    )
    parser.add_argument('config', help='our config of the same model')
    parser.add_argument('source', help='the published checkpoint')
    parser.add_argument('target', help='file to write')
    parser.add_argument(
        '--unused-upsampler',
        type=int,
        metavar='INDEX',
        help='the module of neck.upsample_modules that was never used (default: found by its '
        'biases, all exactly zero)',
    )
    return parser.parse_args(argv)


def _run(args: argparse.Namespace) -> None:
    conversion = convert_checkpoint(args.config, args.source, args.target, args.unused_upsampler)
    print(conversion.report())


main = partial(run_tool, parse_args, _run)
