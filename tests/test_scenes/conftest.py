from __future__ import annotations

import pytest

from mmdysample.scenes import render_scenes

ARGUMENTS = dict(num_train=5, num_val=2, size=(120, 160), seed=7)  # shows crowds


@pytest.fixture(scope='session')
def arguments():
    return dict(ARGUMENTS)


@pytest.fixture(scope='session')
def scenes_root(tmp_path_factory, arguments):
    return render_scenes(tmp_path_factory.mktemp('data') / 'scenes', workers=1, **arguments)
