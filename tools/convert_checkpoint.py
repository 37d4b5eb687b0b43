"""Convert a checkpoint of the authors' forks: python tools/convert_checkpoint.py --help."""

import sys

from mmdysample.engine.convert import main

if __name__ == '__main__':
    sys.exit(main())
