"""Test-time augmentation for depth."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.model import BaseTTAModel
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample


class DepthTTAModel(BaseTTAModel):
    """Average the depth predicted for a picture and for its mirror image, as published.

    ``DepthEstimator`` turns the predictions back; a depth map that was loaded before the flip is
    not, so the merged sample is that of the view as it is.
    """

    def merge_preds(
        self, data_samples_list: Sequence[Sequence[SegDataSample]]
    ) -> list[SegDataSample]:
        """Merge the views of each picture.

        Args:
            data_samples_list (Sequence[Sequence[SegDataSample]]): For each picture its views,
                with ``pred_depth_map``; at least one must not be flipped.

        Returns:
            list[SegDataSample]: One sample per picture.

        Raises:
            ValueError: If all views of a picture are flipped.
        """
        return [self._merge(views) for views in data_samples_list]

    def _merge(self, views: Sequence[SegDataSample]) -> SegDataSample:
        merged = next((view for view in views if not view.metainfo.get('flip')), None)
        if merged is None:
            raise ValueError('tta_pipeline must have a view that is not flipped')
        depth = torch.stack([view.pred_depth_map.data for view in views]).mean(0)
        merged.pred_depth_map = PixelData(data=depth)
        return merged
