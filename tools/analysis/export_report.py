"""Export the models of the page "Ship it": python tools/analysis/export_report.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the plain checkout suffices

from mmdysample.export.report import main

if __name__ == '__main__':
    sys.exit(main())
