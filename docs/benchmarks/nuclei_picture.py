r"""Draw docs/images/nuclei.jpg: an image of nuclei and the masks that a trained detector finds.

Run from the repository root, with CONFIG, CHECKPOINT and IMAGE:

    python docs/benchmarks/nuclei_picture.py configs/nuclei/NAME.py work_dirs/NAME/epoch_12.pth \
        data/nuclei/val/ID.jpg
"""

from __future__ import annotations

import colorsys
import sys
from pathlib import Path

import numpy as np
from mmdet.apis import inference_detector, init_detector
from mmengine.visualization import Visualizer
from PIL import Image

OUT = Path(__file__).parents[1] / 'images' / 'nuclei.jpg'
SCORE, ENLARGED, GAP = 0.5, 2, 8


def main(config: str, checkpoint: str, image: str) -> None:
    """Write the picture."""
    found = inference_detector(init_detector(config, checkpoint, device='cpu'), image)
    masks = found.pred_instances[found.pred_instances.scores > SCORE].masks.numpy()
    with Image.open(image) as file:
        plain = file.convert('RGB').resize([ENLARGED * side for side in file.size])
    hues = np.random.default_rng(0).permutation(len(masks)) / len(masks)
    colours = [tuple(round(255 * c) for c in colorsys.hsv_to_rgb(hue, 0.8, 1)) for hue in hues]
    drawing = Visualizer(image=np.asarray(plain))
    drawing.draw_binary_masks(
        masks.repeat(ENLARGED, 1).repeat(ENLARGED, 2), colors=colours, alphas=0.6
    )
    pair = Image.new('RGB', (2 * plain.width + GAP, plain.height), 'white')
    pair.paste(plain, (0, 0))
    pair.paste(Image.fromarray(drawing.get_image()), (plain.width + GAP, 0))
    pair.save(OUT, quality=85)


if __name__ == '__main__':
    main(*sys.argv[1:])
