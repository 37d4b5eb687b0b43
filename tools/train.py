"""Train a detector or a segmentor: python tools/train.py --help."""

from mmdysample.engine.processes import run_script
from mmdysample.engine.train import main

if __name__ == '__main__':
    run_script(main)
