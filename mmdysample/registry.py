"""Registration with whatever OpenMMLab packages are installed, in one place."""

from __future__ import annotations

import importlib
import warnings
from contextlib import suppress
from importlib.util import find_spec

from mmdysample.upsamplers.base import upsampler_factory, upsampler_names

_HOSTS = {
    'mmdet': ('mmdysample.det', 'mmdysample.scenes.det'),
    'mmseg': ('mmdysample.seg', 'mmdysample.depth', 'mmdysample.scenes.seg'),
}
"""Modules whose import registers necks, heads and datasets, by the package that they extend."""


def register_all() -> None:
    """Register upsamplers, hooks, necks, heads and datasets with the installed packages.

    Without mmengine this does nothing: the operators and modules need PyTorch alone. A package
    that is installed but cannot be imported gives a warning with the reason, not an error.
    """
    if find_spec('mmengine') is None:
        return
    _register_upsamplers()
    from mmdysample.engine.checkpoint import allow_mmengine_checkpoints

    allow_mmengine_checkpoints()
    for hook in ('sampling.hook', 'engine.epoch_seed_hook'):
        importlib.import_module(f'mmdysample.{hook}')
    if find_spec('mmcv') is None:
        return
    for package, modules in _HOSTS.items():
        if find_spec(package) is None:
            continue
        try:
            importlib.import_module(package)
        except (ImportError, AssertionError) as error:  # mmdet asserts its mmcv version range
            warnings.warn(f'mmdysample registers nothing with {package}: {error}', stacklevel=2)
            continue
        for module in modules:
            importlib.import_module(module)


def _register_upsamplers() -> None:
    """Offer the upsamplers to ``mmcv.cnn.build_upsample_layer``; MMCV's own names stay its own."""
    from mmengine.registry import MODELS

    if find_spec('mmcv') is not None:
        importlib.import_module('mmcv.cnn')
        with suppress(ImportError):  # mmcv-lite has no operators, so none named 'carafe'
            importlib.import_module('mmcv.ops')
    for name in upsampler_names():
        if name not in MODELS.module_dict:
            MODELS.register_module(name=name, module=upsampler_factory(name))
