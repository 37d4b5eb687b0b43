"""CamVid, a trained network goes on: eight more epochs at half the learning rate.

The rows ``*_camvid-adopted.py`` begin from the checkpoint of a training with bilinear
upsampling, which ``load_from`` names. This one is what more training alone gives.
"""

_base_ = './segformer_mobilenet-v2_bilinear_24e_camvid.py'

# modified: a shorter training, whose last two validations tell whether it has settled
max_epochs = 8
train_cfg = dict(max_epochs=max_epochs, val_begin=6, val_interval=2, dynamic_intervals=None)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    _base_.param_scheduler[0],
    dict(_base_.param_scheduler[1], end=max_epochs, T_max=max_epochs),
]
