"""Proof and speed of the kernels on one GPU: python tools/analysis/gpu_report.py --out FILE."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the plain checkout suffices

from mmdysample.costs.gpu_report import main

if __name__ == '__main__':
    sys.exit(main())
