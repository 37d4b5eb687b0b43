#!/usr/bin/env bash
# Set up the environment if need be, then run all five tables small on the default data and write
# a page of results: tools/demo.sh [options of `tools/reproduce.py run`, such as --quick].
# Call it again after an interruption: finished rows are kept, others go on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tools/setup_env.sh
exec .venv/bin/python tools/reproduce.py run --all --scale demo "$@"
