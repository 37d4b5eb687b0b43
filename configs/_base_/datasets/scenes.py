"""The synthetic default data of all demo configs, rendered into data_root when first used.

A config of a task adds the class of the data set and its pipelines.
"""

data_root = 'data/scenes/'
scenes = dict(num_train=240, num_val=80, size=(192, 256), seed=0)

train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(data_root=data_root, split='train', scenes=scenes),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(data_root=data_root, split='val', scenes=scenes),
)
test_dataloader = val_dataloader
