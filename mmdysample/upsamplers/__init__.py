"""Upsamplers behind one interface; importing this package imports and registers them all."""

from importlib import import_module
from pkgutil import iter_modules

from mmdysample.upsamplers.a2u import A2U
from mmdysample.upsamplers.base import (
    Upsampler,
    build_upsampler,
    register_upsampler,
    upsampler_names,
)
from mmdysample.upsamplers.carafe import CARAFE
from mmdysample.upsamplers.deconv import Deconv
from mmdysample.upsamplers.dysample import DySample
from mmdysample.upsamplers.fade import FADE
from mmdysample.upsamplers.indexnet import IndexNet
from mmdysample.upsamplers.interpolate import Interpolate
from mmdysample.upsamplers.output import UpsampleOutput
from mmdysample.upsamplers.pixel_shuffle import PixelShuffle
from mmdysample.upsamplers.sapa import SAPA

for _module in iter_modules(__path__):  # a new file needs no line here
    import_module(f'{__name__}.{_module.name}')

__all__ = [
    'A2U',
    'CARAFE',
    'FADE',
    'SAPA',
    'Deconv',
    'DySample',
    'IndexNet',
    'Interpolate',
    'PixelShuffle',
    'UpsampleOutput',
    'Upsampler',
    'build_upsampler',
    'register_upsampler',
    'upsampler_names',
]
