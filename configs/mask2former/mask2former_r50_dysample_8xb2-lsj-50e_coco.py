_base_ = 'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py'
custom_imports = dict(imports=['mmdysample'])
model = dict(
    panoptic_head=dict(
        pixel_decoder=dict(
            type='UpsampleMSDeformAttnPixelDecoder', upsample_cfg=dict(type='dysample')
        )
    )
)
