"""Detection of scenes: Faster R-CNN with the stock nearest upsampling, minutes on two CPU cores."""

_base_ = [
    '../_base_/models/faster-rcnn_r18_fpn_small.py',
    '../_base_/datasets/scenes_detection.py',
    '../_base_/schedules/scratch_12e.py',
    'mmdet::_base_/default_runtime.py',
]

model = dict(roi_head=dict(bbox_head=dict(num_classes=8)))

train_cfg = dict(val_interval=4)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(max_keep_ckpts=2))
randomness = dict(seed=0)
