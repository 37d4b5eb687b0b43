"""Write the scenes data to disk: once, whole or not at all."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing.connection import wait
from numbers import Integral
from pathlib import Path

from filelock import FileLock
from PIL import Image

from mmdysample.scenes.annotations import (
    categories,
    depth_picture,
    instance_annotations,
    panoptic_annotation,
    segments,
)
from mmdysample.scenes.metainfo import SPLITS
from mmdysample.scenes.scenes import VERSION, render_frame

logger = logging.getLogger(__name__)

MANIFEST = 'manifest.json'


def render_scenes(
    root: str | os.PathLike,
    num_train: int,
    num_val: int,
    size: tuple[int, int] = (240, 320),
    seed: int = 0,
    workers: int | None = None,
) -> Path:
    """Render the scenes data into ``root``, unless it's there already.

    .. code-block:: none

        root/
          manifest.json                       the arguments; written last
          {split}/000000.jpg                  pictures, RGB
          annotations/
            instances_{split}.json            COCO boxes and masks (exact run lengths)
            panoptic_{split}.json             COCO panoptic, with its pictures in
            panoptic_{split}/000000.png
          semantic/{split}/000000.png         8 bit, index of the class; 255 would be ignored
          depth/{split}/000000.png            16 bit, millimetres; 0 is no depth

    The data is rendered beside ``root`` and moved there when complete, so an interrupted run
    leaves nothing that could pass for data. A lock lets one process render while others wait.
    What an earlier version of the package rendered from the same arguments is replaced.

    Args:
        root: Folder to write; absent, empty, or the result of an earlier call.
        num_train: Number of pictures in the split 'train'.
        num_val: Number of pictures in the split 'val'.
        size: Height and width in pixels, at least 32 each.
        seed: Seed of all scenes. A scene depends on seed, split and number alone: a larger data
            set begins with the pictures of a smaller one.
        workers: Number of processes. Defaults to the number of usable cores.

    Returns:
        The root as a path.

    Raises:
        ValueError: If an argument is out of range, if ``root`` holds scenes rendered with other
            arguments, or if it holds something else.
        TypeError: If a number isn't an integer.
    """
    root = Path(root).absolute()
    wanted = _manifest(num_train, num_val, size, seed)
    if workers is not None:
        _check_integer('workers', workers, 1)
    if _is_rendered(root, wanted):
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(root.parent / f'.{root.name}.lock'):
        if _is_rendered(root, wanted):
            return root
        partial_root = root.parent / f'.{root.name}.partial'
        outdated = root.parent / f'.{root.name}.outdated'
        shutil.rmtree(partial_root, ignore_errors=True)
        try:
            _write(partial_root, wanted, workers or _usable_cores())
            if root.exists():  # a folder can only take the name of an empty one
                os.replace(root, outdated)
            os.replace(partial_root, root)
        finally:
            shutil.rmtree(partial_root, ignore_errors=True)
            shutil.rmtree(outdated, ignore_errors=True)
    return root


def _manifest(num_train, num_val, size, seed) -> dict:
    if not isinstance(size, (tuple, list)) or len(size) != 2:
        raise ValueError(f'size must be (height, width), got {size!r}')
    for name, value, least in (
        ('num_train', num_train, 0),
        ('num_val', num_val, 0),
        ('size[0]', size[0], 32),
        ('size[1]', size[1], 32),
        ('seed', seed, 0),
    ):
        _check_integer(name, value, least)
    return dict(
        version=VERSION,
        num_train=int(num_train),
        num_val=int(num_val),
        size=[int(side) for side in size],
        seed=int(seed),
    )


def _check_integer(name: str, value, least: int) -> None:
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f'{name} must be an integer, got {value!r}')
    if value < least:
        raise ValueError(f'{name} must be at least {least}, got {value}')


def _is_rendered(root: Path, wanted: dict) -> bool:
    """Tell whether ``root`` holds the wanted data; raise ValueError if it holds anything else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        present = json.loads((root / MANIFEST).read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f'{root} exists and is no scenes data: choose another root') from None
    differing = [key for key, value in wanted.items() if present.get(key) != value]
    if differing == ['version'] and present.get('version', VERSION) < VERSION:
        logger.warning('%s holds scenes of an earlier version: they are rendered anew', root)
        return False
    if differing:
        differences = [
            f'{key} is {present.get(key)} there and {wanted[key]} here' for key in differing
        ]
        raise ValueError(
            f'{root} holds other scenes: {", ".join(differences)}. '
            'Choose another root, or remove that folder to render it anew'
        )
    return True


def _usable_cores() -> int:
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _write(root: Path, manifest: dict, workers: int) -> None:
    seed, size = manifest['seed'], tuple(manifest['size'])
    counts = {split: manifest[f'num_{split}'] for split in SPLITS}
    for split in SPLITS:
        for folder in (
            split,
            f'annotations/panoptic_{split}',
            f'semantic/{split}',
            f'depth/{split}',
        ):
            (root / folder).mkdir(parents=True)
    jobs = [(split, index) for split, count in counts.items() for index in range(count)]
    logger.info('rendering %d scenes of %dx%d into %s', len(jobs), *size, root)
    results = {split: [] for split in SPLITS}
    done = _mapped(partial(_write_scene, root, seed, size), jobs, workers)
    for (split, _), result in zip(jobs, _progress(done, len(jobs)), strict=True):
        results[split].append(result)
    for split, truths in results.items():
        _write_annotations(root, split, size, truths)
    (root / MANIFEST).write_text(json.dumps(manifest, indent=2) + '\n')


def _mapped(function, jobs: list, workers: int) -> Iterator:
    """Give results in the order of the jobs, from a pool where that's possible and worth while."""
    workers = min(workers, len(jobs) // 4)
    if workers < 2 or multiprocessing.current_process().daemon:
        yield from map(function, jobs)
        return
    # A forked worker starts at once; a spawned one would import all of the caller's modules.
    method = 'fork' if 'fork' in multiprocessing.get_all_start_methods() else 'spawn'
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(workers, context, initializer=_end_with_parent) as pool:
        try:
            yield from pool.map(function, jobs, chunksize=4)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _end_with_parent() -> None:
    """End this worker when its parent is killed: it would wait, and hold the lock, for ever."""

    def watch():
        wait([multiprocessing.parent_process().sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _progress(results: Iterator, total: int) -> Iterator:
    try:
        from tqdm import tqdm
    except ImportError:
        return results
    return tqdm(results, total=total, desc='rendering scenes', unit='image')


def _write_scene(root: Path, seed: int, size: tuple[int, int], job: tuple[str, int]):
    """Write one scene's pictures; return its COCO and panoptic annotations."""
    split, index = job
    frame = render_frame(seed, split, index, size)
    parts = segments(frame)
    panoptic, infos = panoptic_annotation(parts)
    name = f'{index:06d}'
    # No chroma subsampling: it would blur the boundaries.
    Image.fromarray(frame.image).save(root / split / f'{name}.jpg', quality=95, subsampling=0)
    for folder, picture in (
        (f'annotations/panoptic_{split}', panoptic),
        (f'semantic/{split}', frame.semantic),
        (f'depth/{split}', depth_picture(frame)),
    ):
        Image.fromarray(picture).save(root / folder / f'{name}.png')
    return instance_annotations(parts), infos


def _write_annotations(root: Path, split: str, size: tuple[int, int], results: list) -> None:
    images = [
        dict(id=i, file_name=f'{i - 1:06d}.jpg', height=size[0], width=size[1])
        for i in range(1, len(results) + 1)
    ]
    instances, panoptic = [], []
    for image, (things, infos) in zip(images, results, strict=True):
        for thing in things:
            instances.append(dict(id=len(instances) + 1, image_id=image['id'], **thing))
        file_name = image['file_name'].replace('.jpg', '.png')
        panoptic.append(dict(image_id=image['id'], file_name=file_name, segments_info=infos))
    for kind, entries in (('instances', instances), ('panoptic', panoptic)):
        content = dict(
            info=dict(description='scenes', version=str(VERSION)),
            images=images,
            annotations=entries,
            categories=categories(kind == 'panoptic'),
        )
        (root / 'annotations' / f'{kind}_{split}.json').write_text(json.dumps(content))
