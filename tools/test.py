"""Test a detector or a segmentor: python tools/test.py --help."""

from mmdysample.engine.processes import run_script
from mmdysample.engine.test import main

if __name__ == '__main__':
    run_script(main)
