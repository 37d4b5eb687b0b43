"""Upsamplers behind one interface; importing this package registers them all."""

from mmdysample.upsamplers.base import (
    Upsampler,
    build_upsampler,
    register_upsampler,
    upsampler_names,
)
from mmdysample.upsamplers.dysample import DySample
from mmdysample.upsamplers.interpolate import Interpolate

__all__ = [
    'DySample',
    'Interpolate',
    'Upsampler',
    'build_upsampler',
    'register_upsampler',
    'upsampler_names',
]
