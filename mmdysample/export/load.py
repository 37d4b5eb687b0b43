"""An exported model in the place of PyTorch's: the same calls, the runtime's numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from mmdysample.engine.build import build_model
from mmdysample.export.errors import ExportError
from mmdysample.export.parts import NETWORK, nest
from mmdysample.export.runtimes import DESCRIPTION, Graph, check_runtime, open_graph


def load_exported(folder: str | Path, threads: int | None = None) -> nn.Module:
    """Load an exported model as a detector of MMDetection or a segmentor of MMSegmentation.

    What was exported runs in the runtime; what was not (decoding, suppression, pooling of
    regions) is the framework's. The weights in PyTorch are NaN, so no number can come from them.
    ``inference_detector``, ``inference_model`` and evaluators take the result.

    Args:
        folder (str or Path): What :func:`export_model` wrote.
        threads (int, optional): Threads of the runtime. Defaults to PyTorch's number.

    Returns:
        nn.Module: In evaluation mode, with ``cfg`` and ``dataset_meta``.

    Raises:
        ExportError: If the folder holds no export.
        MissingRuntimeError: If a package is not installed.
    """
    description = Path(folder) / DESCRIPTION
    if not description.is_file():
        raise ExportError(f'{folder} holds no exported model: it has no {DESCRIPTION}')
    about = json.loads(description.read_text())
    check_runtime(about['to'])
    cfg = Config.fromstring(about['config'], '.py')
    init_default_scope(cfg.get('default_scope', 'mmengine'))  # as the frameworks' init_* do
    model = build_model(cfg)
    for parameter in model.parameters():
        nn.init.constant_(parameter, torch.nan)
    model.cfg, model.dataset_meta = cfg, about['dataset_meta'] or {}
    model.backbone = nn.Identity()
    if getattr(model, 'neck', None) is not None:
        model.neck = nn.Identity()
    for graph in about['graphs']:
        run = open_graph(Path(folder) / graph['file'], graph['outputs'], threads)
        fixed = None if about['dynamic'] else tuple(about['size'])
        if graph['name'] == NETWORK:
            _put_network(model, _named(run, graph['outputs'], fixed))
        else:
            head = model.roi_head.get_submodule(graph['name'])
            head.forward = _region_head(_named(run, graph['outputs'], None))
    return model


def _named(
    run: Graph, names: list[str], fixed: tuple[int, int] | None
) -> Callable[[Tensor], dict[str, Tensor]]:
    """Let a graph take a tensor and return its outputs by name, one image at a time if need be."""

    def named(x: Tensor) -> dict[str, Tensor]:
        if fixed is not None and tuple(x.shape[-2:]) != fixed:
            raise ExportError(
                f'the model was exported for images of {fixed[0]} x {fixed[1]} pixels, got '
                f'{x.shape[-2]} x {x.shape[-1]}; export it with dynamic sizes'
            )
        array = x.float().cpu().numpy()
        images = [array] if fixed is None else np.split(array, len(array))
        outputs = zip(*(run(np.ascontiguousarray(image)) for image in images), strict=True)
        tensors = [torch.from_numpy(np.concatenate(output)).to(x.device) for output in outputs]
        return dict(zip(names, tensors, strict=True))

    return named


def _put_network(model: nn.Module, named: Callable[[Tensor], dict[str, Tensor]]) -> None:
    """Let ``extract_feat`` run the network, and the heads hand on what it computed."""
    latest: dict[str, Any] = {}

    def extract_feat(image: Tensor, *_: Any, **__: Any) -> tuple[Any, ...]:
        latest.clear()
        latest.update(nest(named(image)))
        return tuple(latest.pop('pyramid', ()))

    def hand_on(name: str) -> Callable[..., Any]:
        return lambda *_, **__: latest[name]

    model.extract_feat = extract_feat
    for name in ('decode_head', 'rpn_head', 'semantic_head', 'bbox_head'):
        if hasattr(model, name):
            model.get_submodule(name).forward = hand_on(name)


def _region_head(named: Callable[[Tensor], dict[str, Tensor]]) -> Callable[[Tensor], Any]:
    def forward(features: Tensor) -> Any:
        count = len(features)
        if not count:  # a picture without proposals; runtimes refuse an empty batch
            features = features.new_zeros(1, *features.shape[1:])
        outputs = {name: tensor[:count] for name, tensor in named(features).items()}
        return nest(outputs)['head']

    return forward
