"""Scenes for MMDetection: boxes and masks, and panoptic segments."""

from mmdet.datasets import CocoDataset, CocoPanopticDataset

from mmdysample.scenes.metainfo import PANOPTIC_METAINFO, THING_METAINFO
from mmdysample.scenes.on_demand import ScenesMixin


class ScenesDetDataset(ScenesMixin, CocoDataset):
    """Boxes and instance masks of the scenes' things."""

    METAINFO = THING_METAINFO
    LAYOUT = dict(ann_file='annotations/instances_{split}.json', data_prefix=dict(img='{split}/'))


class ScenesPanopticDataset(ScenesMixin, CocoPanopticDataset):
    """Panoptic segments of the scenes' things and stuff."""

    METAINFO = PANOPTIC_METAINFO
    LAYOUT = dict(
        ann_file='annotations/panoptic_{split}.json',
        data_prefix=dict(img='{split}/', seg='annotations/panoptic_{split}/'),
    )
