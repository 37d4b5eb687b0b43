"""ADE20K tested with sides that are multiples of 32, so that each level is half the one before."""

multiple_of_32 = dict(
    dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=(2048, 512), keep_ratio=True),
            dict(type='ResizeToMultiple', size_divisor=32),
            dict(type='LoadAnnotations', reduce_zero_label=True),
            dict(type='PackSegInputs'),
        ]
    )
)
