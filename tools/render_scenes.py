"""Render the synthetic scenes data, and a picture of it.

The picture in the documentation: python tools/render_scenes.py --preview docs/images/scenes.jpg
"""

import argparse

from mmdysample.scenes import render_scenes
from mmdysample.scenes.preview import contact_sheet


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', help='folder to render the data into')
    parser.add_argument('--num-train', type=int, default=200, help='pictures to train on')
    parser.add_argument('--num-val', type=int, default=50, help='pictures to validate on')
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        default=(240, 320),
        metavar=('H', 'W'),
        help='height and width in pixels (default: 240 320)',
    )
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--workers', type=int, help='processes (default: all usable cores)')
    parser.add_argument(
        '--preview',
        metavar='FILE',
        help='write a contact sheet: picture, instances, classes, depth',
    )
    parser.add_argument('--preview-rows', type=int, default=4, help='scenes on that sheet')
    args = parser.parse_args()
    if not args.out and not args.preview:
        parser.error('give --out, --preview or both')
    return args


def main() -> None:
    """Render what the command line asks for."""
    args = parse_args()
    if args.out:
        root = render_scenes(
            args.out, args.num_train, args.num_val, tuple(args.size), args.seed, args.workers
        )
        print(f'{args.num_train} + {args.num_val} scenes in {root}')
    if args.preview:
        contact_sheet(args.seed, 'train', args.preview_rows, tuple(args.size)).save(args.preview)
        print(f'contact sheet in {args.preview}')


if __name__ == '__main__':
    main()
