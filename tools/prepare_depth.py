"""Check the folder of a depth dataset: python tools/prepare_depth.py --help."""

import sys

from mmdysample.depth.check_data import main

if __name__ == '__main__':
    sys.exit(main())
