"""The parts of a detector or a segmentor that become graphs, and the names of their outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mmdysample.engine.errors import UsageError

NETWORK = 'network'
"""Name of the part that takes the image; the others take features of regions."""


@dataclass
class Part:
    """A graph to export.

    Args:
        name (str): ``'network'``, or the attribute of the RoI head that it is, for instance
            ``'bbox_head'`` or ``'bbox_head.0'``.
        module (nn.Module): Takes one tensor and returns a tuple of tensors.
        channels (int): Channels of the input.
        size (tuple[int, int], optional): Height and width of the input where they are always the
            same. Defaults to None: they are those of the image.
        outputs (list[str]): What the outputs are called; :func:`name_outputs` fills it.
    """

    name: str
    module: nn.Module
    channels: int = 3
    size: tuple[int, int] | None = None
    outputs: list[str] = field(default_factory=list)

    @property
    def input(self) -> str:
        """What the input is called."""
        return 'image' if self.name == NETWORK else 'features'


def split_model(model: nn.Module) -> list[Part]:
    """Take a model apart into graphs; what is between them and after them stays in PyTorch.

    The first part is the network: from the normalised image to the raw outputs of the decode
    head, of the dense head, or of the region proposal head, with the pyramid. The box and mask
    heads of a two-stage detector, which run on the regions that its proposals choose, are parts
    of their own.

    Args:
        model (nn.Module): A detector of MMDetection or a segmentor of MMSegmentation.

    Returns:
        list[Part]: In the order in which they run.

    Raises:
        UsageError: If the model is of a kind whose network has no raw outputs of this form.
    """
    heads = _dense_heads(model)
    if not heads:
        raise UsageError(
            f'{type(model).__name__} cannot be exported: only segmentors with a decode head, '
            'detectors with a dense head and detectors with proposals can, and query-based models '
            'and the mask heads of single-stage detectors cannot'
        )
    parts = [Part(NETWORK, Network(model, heads))]
    roi_head = getattr(model, 'roi_head', None)
    if roi_head is None:
        return parts
    if getattr(roi_head, 'with_shared_head', False):
        raise UsageError(f'{type(model).__name__} has a shared RoI head, which cannot be exported')
    for kind in ('bbox', 'mask'):
        if not getattr(roi_head, f'with_{kind}', False):
            continue
        extractors = roi_head.get_submodule(f'{kind}_roi_extractor')
        for suffix, head in _stages(roi_head.get_submodule(f'{kind}_head')):
            extractor = extractors[int(suffix)] if suffix else extractors
            name = f'{kind}_head.{suffix}'.rstrip('.')
            height, width = map(int, extractor.roi_layers[0].output_size)
            parts.append(Part(name, Head(head), extractor.out_channels, (height, width)))
    return parts


def _dense_heads(model: nn.Module) -> list[str]:
    """Names of the heads that read the pyramid; empty for a model that cannot be exported."""
    heads = [name for name in ('decode_head', 'rpn_head', 'semantic_head') if hasattr(model, name)]
    if not heads and hasattr(model, 'bbox_head') and getattr(model, 'mask_head', None) is None:
        heads = ['bbox_head']
    # Transformers ask for queries or for the samples beside the pyramid.
    known = all(hasattr(getattr(model, name), 'forward') for name in heads)
    query_based = hasattr(model, 'encoder') or hasattr(model, 'query_embedding')
    return [] if query_based or not known else heads


def _stages(head: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """One head, or those of the stages of a cascade, with what the name ends in."""
    if isinstance(head, nn.ModuleList):
        yield from ((str(index), stage) for index, stage in enumerate(head))
    else:
        yield '', head


class Network(nn.Module):
    """From the normalised image ``(N, 3, H, W)`` to the raw outputs, a tuple of tensors.

    Args:
        model (nn.Module): The whole model.
        heads (Sequence[str]): Names of its heads that read the pyramid.
    """

    def __init__(self, model: nn.Module, heads: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.heads = tuple(heads)

    def named_outputs(self, image: Tensor) -> dict[str, Tensor]:
        """Run the network and name its outputs after the heads, and after the pyramid if needed.

        Args:
            image (Tensor): Normalised, ``(N, 3, H, W)``.

        Returns:
            dict[str, Tensor]: As :func:`flatten` names them.
        """
        features = self.model.extract_feat(image)
        outputs = {'pyramid': features} if hasattr(self.model, 'roi_head') else {}
        outputs |= {name: self.model.get_submodule(name)(features) for name in self.heads}
        return dict(flatten(outputs))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Run the network."""
        return tuple(self.named_outputs(image).values())


class Head(nn.Module):
    """A head that reads the features of regions, ``(R, C, h, w)``.

    Args:
        head (nn.Module): A box or mask head.
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def named_outputs(self, features: Tensor) -> dict[str, Tensor]:
        """Run the head and name its outputs."""
        return dict(flatten({'head': self.head(features)}))

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        """Run the head."""
        return tuple(self.named_outputs(features).values())


def name_outputs(part: Part, example: Tensor) -> None:
    """Run a part once and note the names of its outputs."""
    with torch.no_grad():
        part.outputs = list(part.module.named_outputs(example))


def flatten(value: Any, name: str = '') -> Iterator[tuple[str, Tensor]]:
    """Name the tensors in nested sequences and mappings by their way, ``'bbox_head.0.2'``.

    Args:
        value: A tensor, None, or a sequence or mapping of such.
        name (str): Name of the whole. Defaults to ''.

    Yields:
        tuple[str, Tensor]: Name and tensor; None is left out.
    """
    if isinstance(value, Tensor):
        yield name, value
        return
    if value is None:
        return
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    for key, item in items:
        yield from flatten(item, f'{name}.{key}' if name else str(key))


def nest(outputs: Mapping[str, Tensor]) -> Any:
    """Undo :func:`flatten`: numbers become the places of a list, other keys those of a dict."""
    if list(outputs) == ['']:
        return outputs['']
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in outputs.items():
        key, _, rest = name.partition('.')
        groups.setdefault(key, {})[rest] = tensor
    nested = {key: nest(group) for key, group in groups.items()}
    return list(nested.values()) if all(key.isdigit() for key in nested) else nested
