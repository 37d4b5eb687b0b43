"""Loading of MMEngine checkpoints with torch's safe loader.

Since torch 2.6 ``torch.load`` builds only the types that it knows. A checkpoint of MMEngine also
holds its message hub: history buffers, numpy arrays and numpy scalars. MMEngine 0.10.7 therefore
fails to resume, and later forks answer a refusal by loading with the unsafe loader, which runs
whatever code the file names. Here the missing types are allowed one by one, and a refusal stays
a refusal.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import nn

from mmdysample.engine.errors import MissingDataError, RefusedCheckpointError, UsageError
from mmdysample.engine.files import write_whole

#: Both names of numpy's private module: files written under numpy 1 say the first.
_NUMPY_CORE_NAMES = ('numpy.core', 'numpy._core')
_NUMPY_DTYPES = ('bool', 'uint8', 'int16', 'int32', 'int64', 'float16', 'float32', 'float64')


def mmengine_safe_globals() -> list[Callable | tuple[Callable, str]]:
    """List what a checkpoint of MMEngine holds beside tensors and plain containers.

    All of them only hold numbers. A history buffer also names its statistics as attributes of
    its class; for those alone a stand-in answers in place of ``getattr``, which would let a file
    reach any attribute of an allowed type.

    Returns:
        list: Items that ``torch.serialization.add_safe_globals`` accepts.
    """
    from mmengine.logging.history_buffer import HistoryBuffer

    # The public API does not name these two, but their own pickles do.
    rebuild_array, array_args = np.empty(0).__reduce__()[:2]
    rebuild_scalar = np.float64(0).__reduce__()[0]
    numpy_functions = [
        (function, f'{core}.multiarray.{name}')
        for core in _NUMPY_CORE_NAMES
        for function, name in ((rebuild_array, '_reconstruct'), (rebuild_scalar, 'scalar'))
    ]
    dtype_classes = [type(np.dtype(name)) for name in _NUMPY_DTYPES]
    return [
        HistoryBuffer,
        (_statistics_method, 'builtins.getattr'),
        array_args[0],
        np.dtype,
        *dtype_classes,
        *numpy_functions,
    ]


@contextmanager
def mmengine_checkpoints_allowed() -> Iterator[None]:
    """Let ``torch.load(weights_only=True)`` read what MMEngine's runners write, in a context."""
    before = torch.serialization.get_safe_globals()
    try:
        with torch.serialization.safe_globals(mmengine_safe_globals()):
            yield
    finally:
        # torch takes away at the end what was allowed before, too; so does OneDL's loader.
        torch.serialization.add_safe_globals(before)


def load_from_local(filename: str, map_location: Any = None) -> Any:
    """Load a local checkpoint, or refuse it.

    Args:
        filename (str): Path of the file; ``~`` is expanded.
        map_location: As in :func:`torch.load`.

    Returns:
        dict: The checkpoint.

    Raises:
        MissingDataError: If there is no such file.
        RefusedCheckpointError: If the file holds types other than weights and training state, or
            is no checkpoint at all. Nothing in it has been executed.
    """
    path = os.path.expanduser(filename)
    if not os.path.isfile(path):
        raise MissingDataError(f'checkpoint {filename} does not exist')
    try:
        with mmengine_checkpoints_allowed():
            checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except (UnpicklingError, EOFError, RuntimeError) as error:
        # torch wraps the reason into advice to switch the safe loader off.
        lines = str(error.__context__ or error).splitlines() or ['it is empty']
        reason = lines[0].partition(' was not an allowed')[0].rstrip('.')
        raise RefusedCheckpointError(
            f'checkpoint {filename} was not loaded, because it is damaged or holds more than '
            f'weights and training state: {reason}. Nothing in it was executed. If you trust its '
            'origin, allow the types that it needs with torch.serialization.add_safe_globals.'
        ) from error
    if not isinstance(weights_of(checkpoint), Mapping):
        raise RefusedCheckpointError(
            f'checkpoint {filename} holds no weights by name: '
            + (
                f'its state_dict is of type {type(weights_of(checkpoint)).__name__}'
                if isinstance(checkpoint, Mapping)
                else f'it is of type {type(checkpoint).__name__}'
            )
        )
    return checkpoint


def weights_of(checkpoint: Any) -> Any:
    """Find the weights by name: under ``state_dict``, or the checkpoint itself."""
    return checkpoint.get('state_dict', checkpoint) if isinstance(checkpoint, Mapping) else None


def save_whole(checkpoint: Mapping, path: str | Path) -> None:
    """Write a checkpoint as :func:`mmdysample.engine.files.write_whole` does."""
    buffer = io.BytesIO()
    torch.save(dict(checkpoint), buffer)
    write_whole(path, buffer.getvalue())


def load_weights(
    model: nn.Module,
    weights: Mapping[str, Any],
    name: str = 'the checkpoint',
    may_lack: Callable[[str], bool] = lambda _: False,
) -> None:
    """Load weights into a model, all of them, whether they are of parallel training or not.

    Args:
        model (nn.Module): The model.
        weights (Mapping[str, Tensor]): Weights by name.
        name (str): What to call them in a message. Defaults to ``'the checkpoint'``.
        may_lack (Callable): Takes the name of a weight of the model, and tells whether the
            checkpoint may lack it. Defaults to none.

    Raises:
        RefusedCheckpointError: If weights are missing, left over or of another shape.
    """
    problem = f'{name} does not fit the config'
    try:
        missing, unknown = model.load_state_dict(
            {_bare(key): value for key, value in weights.items()}, strict=False
        )
    except RuntimeError as error:
        reason = ' '.join(line.strip() for line in str(error).splitlines()[1:])
        raise RefusedCheckpointError(f'{problem}: {reason[:500]}') from error
    missing = [key for key in missing if not may_lack(key)]
    if missing or unknown:
        lists = {'missing': missing, 'left over': unknown}
        reasons = [f'{title}: {_shortened(names)}' for title, names in lists.items() if names]
        raise RefusedCheckpointError(f'{problem}: {"; ".join(reasons)}')


def check_weights(model: nn.Module, checkpoint: Mapping, name: str) -> None:
    """Refuse a checkpoint that has no parameter of a model, or none of its backbone.

    Args:
        model (nn.Module): A model, wrapped or not.
        checkpoint (Mapping): With weights under ``state_dict``, or weights alone.
        name (str): What to call the checkpoint.

    Raises:
        RefusedCheckpointError: Names what is missing.
    """
    wanted = {_bare(key): value.shape for key, value in model.named_parameters()}
    found = {
        _bare(key): getattr(value, 'shape', None) for key, value in weights_of(checkpoint).items()
    }
    for part, prefix in (('model', ''), ("model's backbone", 'backbone.')):
        names = [key for key in wanted if key.startswith(prefix)]
        if names and not any(found.get(key) == wanted[key] for key in names):
            raise RefusedCheckpointError(
                f'checkpoint {name} has none of the {len(names)} parameters of the {part}, such as '
                f'{names[0]} of shape {tuple(wanted[names[0]])}: it was made with another config'
            )


def last_to_resume(work_dir: str) -> str | None:
    """Find the checkpoint from which a training in a work dir goes on.

    Args:
        work_dir (str): Where to look; it need not exist.

    Returns:
        str: What ``last_checkpoint`` names, first in the work dir itself, which may have been
        moved; else the newest of :func:`newest_to_resume`. None if no training has left a note.

    Raises:
        UsageError: If there is such a note, but no checkpoint.
    """
    note = Path(work_dir, 'last_checkpoint')
    if not note.is_file():
        return None
    named = note.read_text().strip()
    for path in (os.path.join(work_dir, os.path.basename(named)), named):
        if named and ('://' in path or os.path.exists(path)):
            return path
    newest = newest_to_resume(work_dir)
    if newest is None:
        raise UsageError(
            f'{note} names {named or "nothing"}, which does not exist. There is no checkpoint in '
            f'{work_dir} to go on from; start without --resume.'
        )
    return newest


def newest_to_resume(work_dir: str) -> str | None:
    """Find the newest checkpoint of a work dir that is whole and holds a state of training.

    Args:
        work_dir (str): Where to look; it need not exist.

    Returns:
        str: Its path, or None.
    """
    paths = Path(work_dir).glob('*.pth')
    for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            checkpoint = load_from_local(str(path), map_location='cpu')
        except (RefusedCheckpointError, OSError):
            continue
        if isinstance(checkpoint, dict) and {'meta', 'message_hub', 'optimizer'} <= set(checkpoint):
            return str(path)
    return None


def require_safe_loading() -> None:
    """Make every checkpoint load of this process, MMEngine's included, a safe one.

    Local files go through :func:`load_from_local`. For downloads, the environment variable
    that torch reads keeps a fork of MMEngine from falling back to the unsafe loader, and what
    MMEngine stores is allowed for the whole process.
    """
    from mmengine.runner import CheckpointLoader

    torch.serialization.add_safe_globals(mmengine_safe_globals())
    os.environ['TORCH_FORCE_WEIGHTS_ONLY_LOAD'] = '1'
    CheckpointLoader.register_scheme(prefixes='', loader=load_from_local, force=True)


def _shortened(names: Sequence[str], most: int = 8) -> str:
    more = f' and {len(names) - most} more' if len(names) > most else ''
    return ', '.join(names[:most]) + more


def _bare(name: str) -> str:
    """Take away what wrappers of the model put before a parameter's name."""
    return name.removeprefix('module.')


def _statistics_method(owner: type, name: str) -> Callable:
    """Stand in for ``getattr`` in checkpoints: look up a statistic of HistoryBuffer, or refuse."""
    from mmengine.logging.history_buffer import HistoryBuffer

    if owner is HistoryBuffer and name in HistoryBuffer()._statistics_methods:
        return getattr(owner, name)
    raise UnpicklingError(f'getattr({owner!r}, {name!r}) is no statistic of HistoryBuffer')
