"""The KITTI Eigen split as an mmseg dataset."""

from __future__ import annotations

import os.path as osp
from typing import Any

from mmengine.fileio import get_text
from mmseg.datasets import BaseSegDataset


def read_split(text: str) -> list[tuple[str, str | None]]:
    """Parse a list of the Eigen split.

    Args:
        text (str): Lines of picture, depth map and focal length, separated by blanks; the depth
            map is the word None where KITTI has none.

    Returns:
        list[tuple[str, str or None]]: Picture and depth map, in the order of the list.

    Raises:
        ValueError: If a line has less than two words.
    """
    pairs = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) < 2:
            raise ValueError(f'line {number} must name a picture and a depth map, got {line!r}')
        pairs.append((words[0], None if words[1] == 'None' else words[1]))
    return pairs


class KITTIDepthDataset(BaseSegDataset):
    """Pictures of KITTI with a depth map, by the lists of the Eigen split.

    .. code-block:: none

        data/kitti/
          kitti_eigen_train.txt, kitti_eigen_test.txt
          input/2011_09_26/2011_09_26_drive_0001_sync/image_02/data/0000000000.png
          gt_depth/2011_09_26_drive_0001_sync/proj_depth/groundtruth/image_02/0000000005.png

    Depth maps are 16-bit PNG in 1/256 m, with 0 where the laser measured nothing: load them with
    ``LoadDepthAnnotation(depth_rescale_factor=1 / 256)``. Pictures without a depth map are left
    out.

    Args:
        ann_file (str): The list, relative to ``data_root``.
        data_prefix (dict, optional): Folders of pictures and depth maps. Defaults to
            ``dict(img_path='input', depth_map_path='gt_depth')``.
        **kwargs: Further arguments of mmseg's ``BaseSegDataset``.
    """

    METAINFO = dict(classes=(), palette=[])

    def __init__(
        self, ann_file: str, data_prefix: dict[str, str] | None = None, **kwargs: Any
    ) -> None:
        if data_prefix is None:
            data_prefix = dict(img_path='input', depth_map_path='gt_depth')
        super().__init__(ann_file=ann_file, data_prefix=data_prefix, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Read the list."""
        text = get_text(self.ann_file, backend_args=self.backend_args)
        return [
            dict(
                img_path=osp.join(self.data_prefix['img_path'], picture),
                depth_map_path=osp.join(self.data_prefix['depth_map_path'], depth_map),
                seg_fields=[],
            )
            for picture, depth_map in sorted(read_split(text), key=lambda pair: pair[0])
            if depth_map is not None
        ]
