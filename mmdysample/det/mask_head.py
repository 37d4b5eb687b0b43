"""The FCN mask head with a chosen upsampler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmdet.models.roi_heads.mask_heads import FCNMaskHead

from mmdysample.upsamplers import Upsampler, build_upsampler


class UpsampleFCNMaskHead(FCNMaskHead):
    """:class:`mmdet.models.FCNMaskHead` whose own upsample layer is any upsampler.

    The types that the stock head knows (``deconv``, ``nearest``, ``bilinear``, ``carafe`` and
    None) are built by it and keep its weights and outputs to the last bit; every other type goes
    to :func:`mmdysample.build_upsampler`, and without the ReLU that the stock head puts behind
    its deconvolution.

    Args:
        *args: Positional arguments of the stock head.
        upsample_cfg (dict): ``type``, ``scale_factor`` (2 if absent, where the stock head does
            not build the layer) and the options of that upsampler.
            Defaults to ``dict(type='dysample', scale_factor=2)``.
        **kwargs: Keyword arguments of the stock head.

    Raises:
        TypeError: If ``upsample_cfg`` has unknown keys.
        ValueError: If it names an unknown upsampler, or a guided one: a RoI has no finer feature.
    """

    stock_types = (None, 'deconv', 'nearest', 'bilinear', 'carafe')

    def __init__(
        self, *args: Any, upsample_cfg: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        cfg = dict(type='dysample') if upsample_cfg is None else dict(upsample_cfg)
        if cfg.get('type') in self.stock_types:
            super().__init__(*args, upsample_cfg=cfg, **kwargs)
            return
        super().__init__(*args, upsample_cfg=dict(type=None), **kwargs)
        self.scale_factor = cfg.pop('scale_factor', 2)
        self.upsample_cfg = cfg
        self.upsample_method = cfg['type']
        self.upsample = build_upsampler(cfg, self.conv_logits.in_channels, self.scale_factor)
        if self.upsample.guided:
            raise ValueError(
                f'upsample_cfg names {type(self.upsample).__name__}, which is guided; a mask head '
                'has no finer feature to offer, so take an upsampler without a guide'
            )

    def init_weights(self) -> None:
        """Initialise as the stock head; an upsampler keeps the scheme of its own."""
        super().init_weights()
        if isinstance(self.upsample, Upsampler):
            self.upsample.init_weights()
