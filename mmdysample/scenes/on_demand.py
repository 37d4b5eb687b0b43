"""A mixin for data set classes: the scenes are rendered when a data set is first built."""

from __future__ import annotations

from mmdysample.scenes.metainfo import SPLITS
from mmdysample.scenes.writer import render_scenes


class ScenesMixin:
    """Put before an OpenMMLab data set class: renders the data and knows where its parts lie.

    Args:
        data_root (str): Folder of the data. Defaults to 'data/scenes'.
        split (str): 'train' or 'val'. Fills in ``ann_file`` and ``data_prefix`` where they aren't
            given. Defaults to 'train'.
        scenes (dict, optional): Arguments of :func:`mmdysample.scenes.render_scenes` without the
            root. If given, data that is missing is rendered first. Defaults to None.
        **kwargs: Arguments of the framework's class.

    Raises:
        ValueError: If ``split`` is unknown, or as ``render_scenes`` does.
    """

    LAYOUT: dict = {}
    """The framework's arguments that say where a split lies, with '{split}' for its name."""

    def __init__(self, *, data_root='data/scenes', split='train', scenes=None, **kwargs):
        if split not in SPLITS:
            raise ValueError(f'split must be one of {SPLITS}, got {split!r}')
        if scenes is not None:
            render_scenes(data_root, **scenes)
        super().__init__(data_root=data_root, **{**_filled(self.LAYOUT, split), **kwargs})


def _filled(layout, split: str):
    if isinstance(layout, dict):
        return {key: _filled(value, split) for key, value in layout.items()}
    return layout.format(split=split)
