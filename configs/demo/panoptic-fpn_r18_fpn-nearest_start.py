"""What the demo's detection, instance and panoptic rows begin from: a longer training."""

_base_ = './panoptic-fpn_r18_fpn-nearest_demo.py'

# modified: more epochs at a higher learning rate
max_epochs = 6
train_cfg = dict(max_epochs=max_epochs, val_begin=max_epochs + 1)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = [
    _base_.param_scheduler[0],
    dict(_base_.param_scheduler[1], end=max_epochs, T_max=max_epochs),
]
