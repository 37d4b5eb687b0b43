"""List, plan, run and report the published tables: python tools/reproduce.py --help."""

import sys

from mmdysample.reproduce.cli import main

if __name__ == '__main__':
    sys.exit(main())
