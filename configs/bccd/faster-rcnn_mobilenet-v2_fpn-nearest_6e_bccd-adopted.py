"""Blood cells, a trained network goes on: six more epochs at half the learning rate.

The rows ``*_bccd-adopted.py`` begin from the checkpoint of a training with nearest
upsampling, which ``load_from`` names. This one is what more training alone gives.
"""

_base_ = './faster-rcnn_mobilenet-v2_fpn-nearest_12e_bccd.py'

# modified: a shorter training, whose last two validations tell whether it has settled
max_epochs = 6
train_cfg = dict(max_epochs=max_epochs, val_begin=4, val_interval=2)
optim_wrapper = dict(optimizer=dict(lr=1.5e-4))
param_scheduler = [
    _base_.param_scheduler[0],
    dict(_base_.param_scheduler[1], end=max_epochs, T_max=max_epochs),
]
