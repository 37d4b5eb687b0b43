"""Scenes for MMSegmentation: semantic maps and depth."""

from mmseg.datasets import BaseSegDataset, NYUDataset

from mmdysample.scenes.metainfo import SEMANTIC_METAINFO
from mmdysample.scenes.on_demand import ScenesMixin


class ScenesSegDataset(ScenesMixin, BaseSegDataset):
    """Semantic maps of things and stuff; every pixel has a class."""

    METAINFO = SEMANTIC_METAINFO
    LAYOUT = dict(data_prefix=dict(img_path='{split}', seg_map_path='semantic/{split}'))


class ScenesDepthDataset(ScenesMixin, NYUDataset):
    """Metric depth; load it with ``LoadDepthAnnotation(depth_rescale_factor=1e-3)``."""

    METAINFO = SEMANTIC_METAINFO
    LAYOUT = dict(data_prefix=dict(img_path='{split}', depth_map_path='depth/{split}'))
