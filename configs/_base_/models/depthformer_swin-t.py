"""DepthFormer with Swin-T for depths up to 10 m; a config adds decode_head.upsample_cfg."""

custom_imports = dict(imports=['mmdysample'])

channels = [64, 96, 192, 384, 768]
model = dict(
    type='DepthEstimator',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        size=(416, 544),
        pad_val=0,
        seg_pad_val=0,  # no depth
    ),
    backbone=dict(
        type='DepthFormerSwin',
        embed_dims=96,
        depths=[2, 2, 6, 2],
        num_heads=[3, 6, 12, 24],
        window_size=7,
        drop_path_rate=0.3,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/swin/'
            'swin_tiny_patch4_window7_224_20220317-1cdeb081.pth',
        ),
    ),
    neck=dict(type='HAHINeck', in_channels=channels, embedding_dim=256),
    decode_head=dict(
        type='DenseDepthHead',
        in_channels=channels,
        min_depth=1e-3,
        max_depth=10,
        loss_decode=dict(type='SigLoss'),
    ),
    train_cfg=dict(),
    # Validation and test average a picture and its mirror image, as published. One crop covers a
    # whole picture of NYU; other data sets set their own size.
    test_cfg=dict(mode='slide_flip', crop_size=(480, 640), stride=(480, 640)),
)
