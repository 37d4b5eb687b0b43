"""Scenes: a synthetic data set for all five tasks, rendered on demand.

Shaded 3-D shapes on textured ground, with true boxes, masks, classes, panoptic ids and depth. The
classes for MMDetection and MMSegmentation are in :mod:`mmdysample.scenes.det` and
:mod:`mmdysample.scenes.seg`, which need these packages.
"""

from mmdysample.scenes.metainfo import CLASSES, PALETTE, STUFF, THINGS
from mmdysample.scenes.scenes import compose, render_frame
from mmdysample.scenes.writer import render_scenes

__all__ = ['CLASSES', 'PALETTE', 'STUFF', 'THINGS', 'compose', 'render_frame', 'render_scenes']
