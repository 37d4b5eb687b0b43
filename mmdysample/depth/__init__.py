"""Monocular depth for mmseg: DepthFormer with any upsampler."""

from mmdysample.depth.backbone import DepthFormerSwin
from mmdysample.depth.head import DenseDepthHead
from mmdysample.depth.kitti import KITTIDepthDataset
from mmdysample.depth.loss import SigLoss
from mmdysample.depth.metric import BenchmarkDepthMetric
from mmdysample.depth.neck import HAHINeck
from mmdysample.depth.transforms import DepthColorAug, KBCrop, NYUCrop
from mmdysample.depth.visualizer import DepthLocalVisualizer

__all__ = [
    'BenchmarkDepthMetric',
    'DenseDepthHead',
    'DepthColorAug',
    'DepthFormerSwin',
    'DepthLocalVisualizer',
    'HAHINeck',
    'KBCrop',
    'KITTIDepthDataset',
    'NYUCrop',
    'SigLoss',
]
