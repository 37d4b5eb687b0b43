"""Images per second of whole models: python tools/analysis/throughput.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the plain checkout suffices

from mmdysample.costs.throughput import main

if __name__ == '__main__':
    main()
