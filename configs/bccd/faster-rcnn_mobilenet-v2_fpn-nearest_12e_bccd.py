"""Blood cells (BCCD) with ImageNet weights: Faster R-CNN on a MobileNetV2 that is partly frozen.

``tools/pretrained.py mobilenet_v2`` writes the weights. The layers up to stride 8 are frozen, and
so are all statistics of the backbone.
"""

_base_ = './faster-rcnn_r18_fpn_12e_bccd.py'

# modified: the backbone, and a narrower pyramid
model = dict(
    backbone=dict(
        _delete_=True,
        type='MobileNetV2',
        out_indices=(1, 2, 4, 6),
        frozen_stages=3,
        norm_eval=True,
        norm_cfg=dict(type='BN'),
        init_cfg=dict(
            type='Pretrained', checkpoint='data/pretrained/mobilenet_v2.pth', prefix='mmdet'
        ),
    ),
    neck=dict(in_channels=[24, 32, 96, 320], out_channels=64),
    rpn_head=dict(in_channels=64, feat_channels=64),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64),
        bbox_head=dict(in_channels=64),
    ),
)

# modified: a resumed training ends with the numbers of an uninterrupted one
train_dataloader = dict(num_workers=0, persistent_workers=False)
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = dict(num_workers=0, persistent_workers=False)
custom_hooks = [dict(type='EpochSeedHook')]
