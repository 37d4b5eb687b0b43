"""AdamW with a cosine over an epoch, for tiny networks that begin from a longer training.

An interrupted training goes on to the very numbers of an uninterrupted one: every epoch starts
from random states of its own, and no worker process has states that a checkpoint does not hold.
"""

max_epochs = 1
train_cfg = dict(
    type='EpochBasedTrainLoop',
    max_epochs=max_epochs,
    val_begin=max_epochs + 1,  # never: a test follows at once
)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.01),
    clip_grad=dict(max_norm=10, norm_type=2),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=30),
    dict(
        type='CosineAnnealingLR',
        eta_min=0.0,
        begin=0,
        end=max_epochs,
        T_max=max_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
demo_hooks = dict(
    logger=dict(type='LoggerHook', interval=10),
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=2),
)
demo_custom_hooks = [dict(type='EpochSeedHook')]
in_process = dict(num_workers=0, persistent_workers=False)
# Many small steps, as minutes count here, and more pictures than other configs train on: networks
# that see few of them learn these by heart.
pairs_in_process = dict(
    batch_size=2,
    dataset=dict(data_root='data/scenes_demo/', scenes=dict(num_train=720, num_val=0)),
    **in_process,
)
randomness = dict(seed=0)
