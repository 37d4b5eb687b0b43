"""Export a model to ONNX, OpenVINO or ncnn: python tools/export.py --help."""

import sys

from mmdysample.export.command import main

if __name__ == '__main__':
    sys.exit(main())
