"""Scenes: a synthetic data set for all five tasks, rendered on demand.

Shaded 3-D shapes on textured ground, with true boxes, masks, classes, panoptic ids and depth. The
classes for MMDetection and MMSegmentation are in :mod:`.det` and :mod:`.seg`, which need these.
"""

from .metainfo import CLASSES, PALETTE, STUFF, THINGS
from .scenes import compose, render_frame
from .writer import render_scenes

__all__ = ['CLASSES', 'PALETTE', 'STUFF', 'THINGS', 'compose', 'render_frame', 'render_scenes']
