#!/usr/bin/env bash
# Set up the environment if need be, then train Faster R-CNN with nearest upsampling and with
# DySample on the default data, test both and compare them: tools/demo.sh [options], see --help.
# Call it again after an interruption: finished parts are kept.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tools/setup_env.sh
exec .venv/bin/python -m mmdysample.engine.demo "$@"
