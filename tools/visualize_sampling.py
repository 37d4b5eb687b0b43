"""Draw where DySample layers sample: python tools/visualize_sampling.py --help."""

import sys

from mmdysample.sampling.command import main

if __name__ == '__main__':
    sys.exit(main())
