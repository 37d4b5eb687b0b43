"""Super-resolution: a small network whose last layer is a chosen upsampler."""

from mmdysample.superres.metric import PictureMetric
from mmdysample.superres.model import DegradePreprocessor, SuperResolver

__all__ = ['DegradePreprocessor', 'PictureMetric', 'SuperResolver']
