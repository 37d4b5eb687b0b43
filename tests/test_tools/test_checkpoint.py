"""The safe loader reads what MMEngine writes, and nothing that runs code."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import pytest
import torch
from attack import Attack

pytest.importorskip('mmengine')

from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader

from mmdysample.engine.checkpoint import (
    load_from_local,
    mmengine_checkpoints_allowed,
    mmengine_safe_globals,
    require_safe_loading,
)
from mmdysample.engine.errors import RefusedCheckpointError

pytestmark = pytest.mark.smoke


@pytest.fixture(autouse=True)
def process_state(monkeypatch):
    """Start with nothing allowed; give the process back as it was."""
    allowed = torch.serialization.get_safe_globals()
    schemes = dict(CheckpointLoader._schemes)
    monkeypatch.setenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '0')
    torch.serialization.clear_safe_globals()
    yield
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(allowed)
    CheckpointLoader._schemes.clear()
    CheckpointLoader._schemes.update(schemes)


def save_zip(value, path: Path) -> None:
    torch.save(value, path)


def save_legacy(value, path: Path) -> None:
    torch.save(value, path, _use_new_zipfile_serialization=False)


def save_plain_pickle(value, path: Path) -> None:
    path.write_bytes(pickle.dumps(value))


STATE = {
    'history buffer': HistoryBuffer([1.0, 2.0, 3.0], [1, 1, 1]),
    **{
        f'{kind} of {dtype}': make(dtype)
        for dtype in ('bool', 'uint8', 'int32', 'int64', 'float16', 'float32', 'float64')
        for kind, make in {
            'array': lambda dtype: np.ones((2, 3), dtype),
            'scalar': lambda dtype: np.ones((), dtype)[()],
        }.items()
    },
}


@pytest.mark.parametrize('name', STATE)
def test_training_state_needs_the_allowance_and_survives(tmp_path, name):
    path = tmp_path / 'state.pth'
    torch.save(dict(message_hub=STATE[name]), path)
    with pytest.raises(UnpicklingError):
        torch.load(path, weights_only=True)

    with mmengine_checkpoints_allowed():
        loaded = torch.load(path, weights_only=True)['message_hub']
    assert type(loaded) is type(STATE[name])
    assert pickle.dumps(loaded) == pickle.dumps(STATE[name])


@pytest.mark.parametrize('core', ['numpy.core', 'numpy._core'])
def test_both_names_of_numpys_core_are_known(tmp_path, core):
    original = np.arange(4, dtype=np.float32)
    ours = original.__reduce__()[0].__module__
    torch.save(original, tmp_path / 'ours.pth')
    with (
        zipfile.ZipFile(tmp_path / 'ours.pth') as source,
        zipfile.ZipFile(tmp_path / 'other.pth', 'w') as target,
    ):
        for name in source.namelist():
            content = source.read(name)
            if name.endswith('data.pkl'):
                assert ours.encode() in content
                content = content.replace(ours.encode(), f'{core}.multiarray'.encode())
            target.writestr(name, content)

    with mmengine_checkpoints_allowed():
        loaded = torch.load(tmp_path / 'other.pth', weights_only=True)
    np.testing.assert_array_equal(loaded, original)


def test_loading_leaves_the_process_as_it_was(tmp_path):
    path = tmp_path / 'state.pth'
    torch.save(dict(message_hub=HistoryBuffer([1.0], [1])), path)
    load_from_local(str(path))
    assert torch.serialization.get_safe_globals() == []
    torch.serialization.add_safe_globals([HistoryBuffer, Path])  # allowed by somebody else
    load_from_local(str(path))
    assert set(torch.serialization.get_safe_globals()) == {HistoryBuffer, Path}


def test_training_state_loads_after_mmengines_own_loader_has_run(tmp_path):
    """OneDL's takes back what it allows for a download, also what was allowed before."""
    path = tmp_path / 'state.pth'
    torch.save(dict(message_hub=HistoryBuffer([1.0], [1])), path)
    require_safe_loading()
    with torch.serialization.safe_globals([HistoryBuffer, np.ndarray, np.dtype]):
        pass
    assert CheckpointLoader.load_checkpoint(str(path))['message_hub'].mean() == 1


def test_no_builtin_is_allowed():
    allowed = [item[0] if isinstance(item, tuple) else item for item in mmengine_safe_globals()]
    assert allowed
    assert {function.__module__.partition('.')[0] for function in allowed} == {
        'mmdysample',
        'mmengine',
        'numpy',
    }


class Reach:
    """Asks for an attribute of an allowed type when it is unpickled."""

    def __init__(self, owner: type, name: str) -> None:
        self.owner, self.name = owner, name

    def __reduce__(self):
        return getattr, (self.owner, self.name)


@pytest.mark.parametrize(
    ('owner', 'name'), [(HistoryBuffer, '__init__'), (HistoryBuffer, 'update'), (np.ndarray, 'max')]
)
def test_attributes_of_allowed_types_are_out_of_reach(tmp_path, owner, name):
    path = tmp_path / 'reach.pth'
    torch.save(Reach(owner, name), path)
    with pytest.raises(RefusedCheckpointError, match=name):
        load_from_local(str(path))


@pytest.mark.parametrize('save', [save_zip, save_legacy, save_plain_pickle])
@pytest.mark.parametrize('loader', ['ours', "MMEngine's"])
def test_code_in_a_checkpoint_is_refused_by_name(tmp_path, save, loader):
    trap, path = tmp_path / 'sprung', tmp_path / 'evil.pth'
    save(dict(state_dict={}, hook=Attack(trap)), path)
    require_safe_loading()
    load = load_from_local if loader == 'ours' else CheckpointLoader.load_checkpoint

    with pytest.raises(RefusedCheckpointError) as caught:
        load(str(path))
    assert str(path) in str(caught.value)
    assert 'Nothing in it was executed' in str(caught.value)
    assert not trap.exists()


def test_the_attack_is_a_real_one(tmp_path):
    pickle.loads(pickle.dumps(Attack(tmp_path / 'sprung')))
    assert (tmp_path / 'sprung').exists()


@pytest.mark.parametrize('content', [b'', b'not a checkpoint', b'PK\x03\x04 cut short'])
def test_a_damaged_file_is_refused_by_name(tmp_path, content):
    path = tmp_path / 'damaged.pth'
    path.write_bytes(content)
    with pytest.raises(RefusedCheckpointError, match=r'damaged\.pth'):
        load_from_local(str(path))


@pytest.mark.parametrize(
    ('content', 'said'),
    [
        ([torch.ones(1)], 'it is of type list'),
        (torch.ones(1), 'it is of type Tensor'),
        (dict(state_dict=5), 'its state_dict is of type int'),
    ],
)
def test_what_holds_no_weights_is_refused(tmp_path, content, said):
    path = tmp_path / 'other.pth'
    torch.save(content, path)
    with pytest.raises(RefusedCheckpointError, match=rf'other\.pth holds no weights.* {said}'):
        load_from_local(str(path))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'gone\.pth'):
        load_from_local(str(tmp_path / 'gone.pth'))
