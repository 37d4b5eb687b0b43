"""Upsamplers behind one interface; importing this package registers them all."""

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
from mmdysample.upsamplers.pixel_shuffle import PixelShuffle
from mmdysample.upsamplers.sapa import SAPA

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
    'Upsampler',
    'build_upsampler',
    'register_upsampler',
    'upsampler_names',
]
