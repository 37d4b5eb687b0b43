"""DySample and its rivals as upsamplers for OpenMMLab networks."""

from mmdysample.registry import register_all
from mmdysample.upsamplers import (
    DySample,
    Upsampler,
    build_upsampler,
    register_upsampler,
    upsampler_names,
)
from mmdysample.version import __version__

register_all()

__all__ = [
    'DySample',
    'Upsampler',
    '__version__',
    'build_upsampler',
    'register_upsampler',
    'upsampler_names',
]
