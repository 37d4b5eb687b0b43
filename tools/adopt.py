"""Let a trained network go on with DySample: python tools/adopt.py --help."""

import sys

from mmdysample.engine.adopt import main

if __name__ == '__main__':
    sys.exit(main())
