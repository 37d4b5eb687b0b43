"""What the demo's rows of depth begin from: a longer training."""

_base_ = './depthformer_bilinear_demo.py'

# modified: many more epochs
max_epochs = 12
train_cfg = dict(max_epochs=max_epochs, val_begin=max_epochs + 1)
param_scheduler = [
    _base_.param_scheduler[0],
    dict(_base_.param_scheduler[1], end=max_epochs, T_max=max_epochs),
]
