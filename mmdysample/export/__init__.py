"""Whole detectors and segmentors for other runtimes, each compared with PyTorch before it is kept.

Import this package by name: ``import mmdysample`` alone does not load it. It needs the extra
``export``.
"""

from mmdysample.export.export import export_model
from mmdysample.export.load import load_exported

__all__ = ['export_model', 'load_exported']
