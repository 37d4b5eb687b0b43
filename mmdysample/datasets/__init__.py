"""Scenes: a synthetic data set for all five tasks, rendered on demand.

Shaded 3-D shapes on textured ground, with true boxes, masks, classes, panoptic ids and depth. The
classes for MMDetection and MMSegmentation are in :mod:`mmdysample.datasets.det` and
:mod:`mmdysample.datasets.seg`, which need these packages.
"""

from mmdysample.datasets.metainfo import CLASSES, PALETTE, STUFF, THINGS
from mmdysample.datasets.scenes import compose, render_frame
from mmdysample.datasets.writer import render_scenes

__all__ = ['CLASSES', 'PALETTE', 'STUFF', 'THINGS', 'compose', 'render_frame', 'render_scenes']
