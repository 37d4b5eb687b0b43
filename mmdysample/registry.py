"""What the package adds to OpenMMLab's registries, without importing any of it.

A class is registered as a function that imports it when something is built. So the models of
MMDetection and MMSegmentation are not imported before a config needs them, and a package that
cannot be imported says so where it is used. The class itself is in the module that the table names.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module, metadata
from typing import Any

from mmdysample.upsamplers.base import upsampler_factory, upsampler_names

CLASSES = {
    'mmengine': {
        'HOOKS': {
            'mmdysample.engine.hooks': ['EpochSeedHook'],
            'mmdysample.sampling.hook': ['SamplingStatsHook'],
        },
        'METRICS': {'mmdysample.superres': ['PictureMetric']},
        'MODELS': {
            'mmdysample.superres': ['DegradePreprocessor', 'SuperResolver'],
            'mmdysample.upsamplers.dysample_down': ['DySampleDown'],
        },
    },
    'mmdet': {
        'MODELS': {
            'mmdysample.det': [
                'ResamplePAFPN',
                'UpsampleCSPNeXtPAFPN',
                'UpsampleFCNMaskHead',
                'UpsampleFPN',
                'UpsampleMSDeformAttnPixelDecoder',
                'UpsampleMaskFormerHead',
                'UpsampleNASFPN',
                'UpsamplePAFPN',
                'UpsamplePanopticFPNHead',
                'UpsampleYOLOXPAFPN',
            ],
        },
        'DATASETS': {'mmdysample.scenes.det': ['ScenesDetDataset', 'ScenesPanopticDataset']},
    },
    'mmseg': {
        'MODELS': {
            'mmdysample.seg': ['UpsampleFPN', 'UpsampleSegformerHead', 'UpsampleUPerHead'],
            'mmdysample.seg.maskformer_head': ['UpsampleMaskFormerHead'],  # needs mmdet too
            'mmdysample.depth': ['DenseDepthHead', 'DepthFormerSwin', 'HAHINeck', 'SigLoss'],
        },
        'DATASETS': {
            'mmdysample.scenes.seg': ['ScenesDepthDataset', 'ScenesSegDataset'],
            'mmdysample.depth': ['KITTIDepthDataset'],
        },
        'TRANSFORMS': {'mmdysample.depth': ['DepthColorAug', 'KBCrop', 'NYUCrop']},
        'METRICS': {
            'mmdysample.seg': ['BoundaryIoUMetric'],
            'mmdysample.depth': ['BenchmarkDepthMetric'],
        },
        'VISUALIZERS': {'mmdysample.depth': ['DepthLocalVisualizer']},
    },
}
"""Registered classes, by the package that they extend, its registry and the module of the class."""

MMCV_UPSAMPLERS = ('nearest', 'bilinear', 'deconv', 'pixel_shuffle', 'carafe')
"""Names that mean MMCV's own layers in ``mmcv.cnn.build_upsample_layer``."""


def register_all() -> None:
    """Register hooks, necks, heads, datasets and upsamplers with the installed packages.

    Packages that are not installed are left out. One that is installed but cannot be imported
    gives a warning with the reason, not an error.
    """
    for package, classes in CLASSES.items():
        try:
            registries = import_module(f'{package}.registry')
        except Exception as error:  # upstream asserts its version range, a broken build raises more
            if not (isinstance(error, ModuleNotFoundError) and error.name == package):
                warnings.warn(f'mmdysample registers nothing with {package}: {error}', stacklevel=2)
            continue
        for registry, modules in classes.items():
            for module, names in modules.items():
                for name in names:
                    getattr(registries, registry).register_module(
                        name=name, module=_importing(module, name)
                    )
        if package == 'mmengine':
            _register_upsamplers(registries.MODELS)
            _name_config_packages()


def _importing(module: str, name: str) -> Callable[..., Any]:
    """Make a function that imports a class and builds an instance of it."""

    def build(*args: Any, **kwargs: Any) -> Any:
        from mmengine.utils import ManagerMixin

        cls = getattr(import_module(module), name)
        # As the registries do for classes: MMEngine finds a visualizer again by its name.
        return (cls.get_instance if issubclass(cls, ManagerMixin) else cls)(*args, **kwargs)

    build.__name__ = build.__qualname__ = name
    build.__module__ = module
    return build


def _register_upsamplers(models: Any) -> None:
    """Offer the upsamplers to ``mmcv.cnn.build_upsample_layer``; MMCV's own names stay its own."""
    for name in upsampler_names():
        if name not in MMCV_UPSAMPLERS:
            models.register_module(name=name, module=upsampler_factory(name))


def _name_config_packages() -> None:
    """Let ``_base_ = 'mmdysample::...'`` and ``'mmseg::...'`` find the installed configs.

    MMEngine looks a prefix up in a list of distributions. This package is not in it, and OneDL's
    build of mmseg has another name than the listed one; without this, every config that inherits
    one of mmseg's own fails there.
    """
    from mmengine.config.utils import MODULE2PACKAGE

    MODULE2PACKAGE['mmdysample'] = 'mmdysample'
    try:
        metadata.version(MODULE2PACKAGE['mmseg'])
    except metadata.PackageNotFoundError:
        MODULE2PACKAGE['mmseg'] = 'mmseg'
