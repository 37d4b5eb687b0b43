"""Adoption: a network that was trained with nearest or bilinear goes on with DySample.

DySample can start at the positions that an interpolation samples, so the adopted network gives the
outputs of the trained one before its first step, and no training is lost. Whether it does is not
assumed but measured, on a batch of the config's own data.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial, reduce
from importlib import import_module
from itertools import product
from operator import getitem
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

from mmdysample.engine.checkpoint import load_from_local, load_weights, save_whole, weights_of
from mmdysample.engine.errors import UsageError
from mmdysample.engine.files import write_whole
from mmdysample.engine.launch import read_config, run_tool
from mmdysample.upsamplers import DySample, build_upsampler, upsampler_names

TOLERANCE = 1e-4
"""Greatest difference of outputs, in standard deviations of the trained network's."""

STRIDE = 32
"""Pictures are cropped to multiples of this for the comparison: elsewhere DySample cuts, where
``F.interpolate(size=...)`` stretches, and the two differ at the far edge."""


@dataclass(frozen=True)
class Adopted:
    """A neck or head that takes DySample.

    Attributes:
        path (str): Where it is in the model, for instance ``'neck'``.
        cfg (dict): Its new config.
        init (str): The initial positions that give the old outputs.
        exact (float): Greatest difference of outputs with all offsets at zero, in standard
            deviations of the old outputs.
        random (float): The same with the random offsets that training starts from.
    """

    path: str
    cfg: Mapping[str, Any]
    init: str
    exact: float
    random: float


def adopt(
    cfg: Config, state: Mapping[str, Tensor], upsample: str, where: Sequence[str] = ()
) -> tuple[Config, dict[str, Tensor], list[Adopted]]:
    """Put DySample into a trained network whose upsampling is an interpolation.

    Args:
        cfg (Config): The config that the network was trained with.
        state (Mapping[str, Tensor]): Its weights.
        upsample (str): A type whose class is :class:`mmdysample.DySample`.
        where (Sequence[str]): Parts of the model to change, such as ``'neck'``.
            Defaults to (): all that can be.

    Returns:
        tuple: The new config, the new weights, and what was changed.

    Raises:
        UsageError: If the type cannot start at the old outputs, no part of the model can take
            it, or a changed part gives other outputs than before.
        RefusedCheckpointError: If the weights are not those of the config's model.
    """
    try:
        probe = build_upsampler(upsample, in_channels=256)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if not isinstance(probe, DySample):
        built = {name: build_upsampler(name, in_channels=256) for name in upsampler_names()}
        able = [name for name, upsampler in built.items() if isinstance(upsampler, DySample)]
        raise UsageError(
            f'{upsample} cannot start at the outputs of a trained network: its kernels are drawn '
            f'at random. The types that can are {", ".join(able)}'
        )
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    parts = {path: node for path, node in _parts(cfg.model) if not where or path in where}
    if not parts or set(where) - set(parts):
        found = ', '.join(path for path, _ in _parts(cfg.model)) or 'none'
        wanted = ', '.join(where) or 'any part of the model'
        raise UsageError(f'{wanted} has no upsampler to take {upsample}; parts that have: {found}')
    trained = _load(cfg.model, state)
    records = _record(trained, cfg, list(parts))
    adopted = [_adopt_part(cfg, state, upsample, path, records[path]) for path in parts]
    model_cfg = deepcopy(cfg.model)
    for part in adopted:
        _replace(model_cfg, part.path, part.cfg)
    new = deepcopy(cfg)
    new.model = model_cfg
    for node in _nodes(new.model):
        if (node.get('init_cfg') or {}).get('type') == 'Pretrained':
            node.init_cfg = None  # every weight is in the checkpoint
    imports = dict(cfg.get('custom_imports') or dict(imports=[]))
    imports['imports'] = sorted({*imports['imports'], 'mmdysample'})
    new.custom_imports = imports
    return new, _load(model_cfg, state, upsamplers_are_new=True).state_dict(), adopted


def _parts(model_cfg: ConfigDict) -> Iterator[tuple[str, ConfigDict]]:
    """Find the parts of a model that interpolate and can take another upsampler."""
    for path, node in _nodes_by_path(model_cfg):
        kind = node.get('type')
        cls = _class_of(kind) if isinstance(kind, str) else kind
        if cls is None:
            continue
        learned = (node.get('upsample_cfg') or {}).get('type', 'nearest')
        if cls.__module__.startswith('mmdysample.'):
            takes = 'upsample_cfg' in node
        else:
            takes = _class_of(_counterpart(kind)) is not None
            if cls.__name__ == 'FCNMaskHead':  # what it says nothing about is a deconvolution
                learned = (node.get('upsample_cfg') or {}).get('type', 'deconv')
        if takes and learned in ('nearest', 'bilinear'):
            yield path, node


def _class_of(kind: str) -> type | None:
    """Find the class that a type names in the default scope."""
    with MODELS.switch_scope_and_registry(None) as registry:
        entry = registry.get(kind)
    if inspect.isfunction(entry):  # ours are imported when they are built
        return getattr(import_module(entry.__module__), entry.__name__)
    return entry


def _counterpart(kind: str) -> str:
    """Name our class of a framework's: ``mmdet.FPN`` to ``mmdet.UpsampleFPN``."""
    scope, _, name = kind.rpartition('.')
    return f'{scope}.Upsample{name}' if scope else f'Upsample{name}'


def _adopt_part(
    cfg: Config, state: Mapping[str, Tensor], upsample: str, path: str, record: _Record
) -> Adopted:
    """Find the form of a part that gives the recorded outputs, or refuse."""
    old = _get(cfg.model, path)
    kind = old.type
    if not _class_of(kind).__module__.startswith('mmdysample.'):
        kind = _counterpart(kind)
    # Heads that climb in several learned steps resize in one step when they interpolate.
    takes_cascade = 'cascade' in inspect.signature(_class_of(kind).__init__).parameters
    cascades = (False, True) if takes_cascade else (None,)
    best: Adopted | None = None
    reason = ''
    for init, cascade in product(('bilinear', 'nearest'), cascades):
        new = deepcopy(old)
        new.pop('interpolate_mode', None)
        new.update(type=kind, upsample_cfg=dict(type=upsample, init=init))
        if cascade is not None:
            new.cascade = cascade
        model_cfg = deepcopy(cfg.model)
        _replace(model_cfg, path, new)
        try:
            model = _load(model_cfg, state, upsamplers_are_new=True)
        except ValueError as error:  # channels that cannot be divided as the type wants
            reason = str(error)
            continue
        part = model.get_submodule(path)
        exact, random = record.difference(part, _zero_offsets(part)), record.difference(part)
        found = Adopted(path, new, init, exact, random)
        best = found if best is None or exact < best.exact else best
        if best.exact <= TOLERANCE:
            return best
    if best is None:
        raise UsageError(f'{path} cannot take {upsample}: {reason}')
    raise UsageError(
        f'{path} would not give its old outputs with {upsample}: they differ by {best.exact:.2g} '
        f'standard deviations where {TOLERANCE:.2g} is allowed. DySample starts as nearest or as '
        'bilinear without align_corners'
    )


@dataclass
class _Record:
    """Inputs and outputs of one call of a part."""

    args: tuple
    kwargs: dict[str, Any]
    output: Any

    def difference(self, part: nn.Module, weights: Mapping[str, Tensor] | None = None) -> float:
        """Run a part, some of its weights exchanged, and compare its outputs with those recorded.

        Returns:
            float: The greatest difference in standard deviations of a recorded output.
        """
        with torch.no_grad():
            output = functional_call(part, weights or {}, self.args, self.kwargs)
        pairs = zip(_tensors(output), _tensors(self.output), strict=True)
        return max(
            ((ours - theirs).abs().max() / theirs.std().clamp(min=1e-12)).item()
            for ours, theirs in pairs
        )


def _record(model: nn.Module, cfg: Config, paths: Sequence[str]) -> dict[str, _Record]:
    """Run the trained model on the first training batch and keep what its parts took and gave."""
    records: dict[str, _Record] = {}

    def recording(path: str, forward: Any, *args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        records.setdefault(path, _Record(args, kwargs, output))
        return output

    # Heads call their own forward without the hooks of a module, so the method is replaced.
    parts = {path: model.get_submodule(path) for path in paths}
    for path, part in parts.items():
        part.forward = partial(recording, path, part.forward)
    loader = deepcopy(cfg.train_dataloader)
    loader.update(num_workers=0, persistent_workers=False, batch_size=min(2, loader.batch_size))
    try:
        batch = next(iter(Runner.build_dataloader(loader, seed=0)))
        data = model.data_preprocessor(batch, training=False)
        height, width = (side - side % STRIDE for side in data['inputs'].shape[-2:])
        data['inputs'] = data['inputs'][..., :height, :width]
        with torch.no_grad():
            model(**data, mode='predict')
    finally:
        for part in parts.values():
            del part.forward  # the class's own again
    silent = set(paths) - set(records)
    if silent:
        raise UsageError(f'{", ".join(sorted(silent))} did not run on the first training batch')
    return records


def _tensors(output: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]


def _load(
    model_cfg: ConfigDict, state: Mapping[str, Tensor], upsamplers_are_new: bool = False
) -> nn.Module:
    """Build a model in evaluation mode, with weights that must be all of it."""
    model = MODELS.build(deepcopy(model_cfg)).eval()
    load_weights(model, state, may_lack=lambda name: upsamplers_are_new and 'upsample' in name)
    return model


def _zero_offsets(part: nn.Module) -> dict[str, Tensor]:
    """Make the weights with which every DySample of a part samples its initial positions."""
    return {
        f'{path}.offset.{name}': torch.zeros_like(weight)
        for path, module in part.named_modules()
        if isinstance(module, DySample)
        for name, weight in module.offset.named_parameters()
    }


def _nodes_by_path(node: Any, path: str = '') -> Iterator[tuple[str, ConfigDict]]:
    if isinstance(node, Mapping):
        if path and 'type' in node:
            yield path, node
        for key, value in node.items():
            yield from _nodes_by_path(value, f'{path}.{key}' if path else key)


def _nodes(node: Any) -> Iterator[ConfigDict]:
    return (found for _, found in _nodes_by_path(node))


def _get(model_cfg: ConfigDict, path: str) -> ConfigDict:
    return reduce(getitem, filter(None, path.split('.')), model_cfg)


def _replace(model_cfg: ConfigDict, path: str, new: Mapping[str, Any]) -> None:
    parent, _, last = path.rpartition('.')
    _get(model_cfg, parent)[last] = new


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line of the tool."""
    parser = argparse.ArgumentParser(
        description='Write a config and a checkpoint in which only upsamplers are new'
    )
    parser.add_argument('config', help='the config that the network was trained with')
    parser.add_argument('checkpoint', help='its checkpoint')
    parser.add_argument('--upsample', required=True, metavar='TYPE', help="a member of DySample's")
    parser.add_argument('--out', required=True, type=Path, help='folder for both files')
    parser.add_argument(
        '--where', nargs='+', default=[], metavar='PART', help='such as neck (default: all)'
    )
    return parser.parse_args(argv)


def _run(args: argparse.Namespace) -> None:
    cfg = read_config(args.config)
    checkpoint = load_from_local(args.checkpoint, map_location='cpu')
    new, weights, adopted = adopt(cfg, weights_of(checkpoint), args.upsample, args.where)
    stem = f'{Path(args.config).stem}_{args.upsample.replace("_", "-")}'
    config, target = args.out / f'{stem}.py', args.out / f'{stem}.pth'
    meta = {k: v for k, v in checkpoint.get('meta', {}).items() if k in ('dataset_meta', 'epoch')}
    save_whole(dict(state_dict=weights, meta=meta), target)
    new.load_from, new.resume = str(target), False
    new.work_dir = str(args.out)
    write_whole(config, new.pretty_text.encode())
    for part in adopted:
        print(
            f'{part.path}: {part.cfg["type"]} starts as {part.init}; its outputs are the old ones '
            f'within {part.exact:.1e} of their deviation, with random offsets {part.random:.1e}'
        )
    print(f'Train on with: python tools/train.py {config}')


main = partial(run_tool, parse_args, _run)
