"""The parts of a detector or a segmentor that become graphs, and the names of their outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mmdysample.export.errors import ExportError

NETWORK = 'network'
"""Name of the part that takes the image; the others take features of regions."""

ODD_SIZE = (129, 257)
"""Height and width of the image by which graphs with free sizes are made. Both are 2**n + 1, so
every stride up to 32 and windows of 7, 8, 12 and 16 pixels leave a rest on every level. An exporter
records the padding that fills up such a rest only if the example needs it."""


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
        aligned (bool): Whether PyTorch's own network refuses :data:`ODD_SIZE`, because its pyramid
            takes multiples of the largest stride only; :func:`name_outputs` finds out.
    """

    name: str
    module: nn.Module
    channels: int = 3
    size: tuple[int, int] | None = None
    outputs: list[str] = field(default_factory=list)
    aligned: bool = False

    @property
    def input(self) -> str:
        """What the input is called."""
        return 'image' if self.name == NETWORK else 'features'

    def example(self, size: tuple[int, int], free: bool, batch: int = 1) -> Tensor:
        """Draw an input to make the graph by.

        Args:
            size (tuple[int, int]): Height and width of the image if the graph keeps them.
            free (bool): Whether sizes may differ from those of the export.
            batch (int): Number of images or regions. Defaults to 1.
        """
        if free and not self.aligned:
            size = ODD_SIZE
        return torch.randn(batch, self.channels, *(self.size or size))


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
        ExportError: If the model is of a kind whose network has no raw outputs of this form.
    """
    heads = _dense_heads(model)
    if not heads:
        raise ExportError(
            f'{type(model).__name__} cannot be exported: only segmentors with a decode head, '
            'detectors with a dense head and detectors with proposals can, and query-based models '
            'and the mask heads of single-stage detectors cannot'
        )
    parts = [Part(NETWORK, Outputs(model, heads))]
    roi_head = getattr(model, 'roi_head', None)
    if getattr(roi_head, 'with_shared_head', False):
        raise ExportError(f'{type(model).__name__} has a shared RoI head, which cannot be exported')
    for kind in ('bbox', 'mask'):
        if not getattr(roi_head, f'with_{kind}', False):
            continue
        extractors = roi_head.get_submodule(f'{kind}_roi_extractor')
        head = roi_head.get_submodule(f'{kind}_head')
        cascade = isinstance(head, nn.ModuleList)  # a head for each of its stages
        stages = list(head) if cascade else [head]
        extractors = list(extractors) if cascade else [extractors]
        for index, (stage, extractor) in enumerate(zip(stages, extractors, strict=True)):
            name = f'{kind}_head.{index}' if cascade else f'{kind}_head'
            height, width = map(int, extractor.roi_layers[0].output_size)
            parts.append(Part(name, Outputs(stage), extractor.out_channels, (height, width)))
    return parts


def _dense_heads(model: nn.Module) -> list[str]:
    """Name the heads that read the pyramid; none for a model that cannot be exported."""
    heads = [name for name in ('decode_head', 'rpn_head', 'semantic_head') if hasattr(model, name)]
    if not heads and hasattr(model, 'bbox_head') and getattr(model, 'mask_head', None) is None:
        heads = ['bbox_head']
    # Transformers ask for queries or for the samples beside the pyramid.
    known = all(hasattr(getattr(model, name), 'forward') for name in heads)
    query_based = hasattr(model, 'encoder') or hasattr(model, 'query_embedding')
    return [] if query_based or not known else heads


class Outputs(nn.Module):
    """A part as exporters see it: one tensor goes in, a tuple of tensors comes out.

    Args:
        model (nn.Module): The whole model, or a box or mask head.
        heads (Sequence[str]): Names of the model's heads that read the pyramid. Defaults to none:
            ``model`` is a head that reads the features of regions, ``(R, C, h, w)``.
    """

    def __init__(self, model: nn.Module, heads: Sequence[str] = ()) -> None:
        super().__init__()
        self.model = model
        self.heads = tuple(heads)

    def named_outputs(self, x: Tensor) -> dict[str, Tensor]:
        """Run the part; outputs are named after the heads, and after the pyramid if needed."""
        if not self.heads:
            return dict(flatten({'head': self.model(x)}))
        features = self.model.extract_feat(x)
        outputs = {'pyramid': features} if hasattr(self.model, 'roi_head') else {}
        outputs |= {name: self.model.get_submodule(name)(features) for name in self.heads}
        return dict(flatten(outputs))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Run the part."""
        return tuple(self.named_outputs(x).values())


def name_outputs(part: Part, size: tuple[int, int]) -> None:
    """Run a part in PyTorch; note the names of its outputs and whether it takes an odd image.

    Args:
        part (Part): The part; ``outputs`` and ``aligned`` are set.
        size (tuple[int, int]): Height and width of an image that it takes in any case.
    """
    with torch.no_grad():
        try:
            outputs = part.module.named_outputs(part.example(size, free=True))
        except (RuntimeError, ValueError, AssertionError):
            part.aligned = True
            outputs = part.module.named_outputs(part.example(size, free=False))
    part.outputs = list(outputs)


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
    elif value is not None:
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            yield from flatten(item, f'{name}.{key}' if name else str(key))


def nest(outputs: Mapping[str, Tensor]) -> Any:
    """Undo :func:`flatten`: numbers become the indices of a list, other keys those of a dict."""
    if list(outputs) == ['']:
        return outputs['']
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in outputs.items():
        key, _, rest = name.partition('.')
        groups.setdefault(key, {})[rest] = tensor
    nested = {key: nest(group) for key, group in groups.items()}
    return list(nested.values()) if all(key.isdigit() for key in nested) else nested
