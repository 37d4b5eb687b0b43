"""Latency and memory of every upsampler: python tools/analysis/latency.py --preset cpu."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the plain checkout suffices

from mmdysample.costs.latency import main

if __name__ == '__main__':
    main()
