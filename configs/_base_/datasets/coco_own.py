"""Data of one's own in COCO format: train/, val/ and annotations/{train,val}.json below data_root.

A config adds data_root, metainfo and pipelines to the data sets.
"""

dataset_type = 'CocoDataset'
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type, ann_file='annotations/train.json', data_prefix=dict(img='train/')
    ),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        ann_file='annotations/val.json',
        data_prefix=dict(img='val/'),
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
