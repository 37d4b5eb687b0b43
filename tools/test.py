"""Test a detector or a segmentor: python tools/test.py --help."""

import sys

from mmdysample.engine.test import main

if __name__ == '__main__':
    sys.exit(main())
