"""Write ImageNet weights of a backbone from a local file: python tools/pretrained.py --help."""

import sys

from mmdysample.engine.pretrained import main

if __name__ == '__main__':
    sys.exit(main())
