"""Train a detector or a segmentor: python tools/train.py --help."""

import sys

from mmdysample.engine.train import main

if __name__ == '__main__':
    sys.exit(main())
