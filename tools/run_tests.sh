#!/usr/bin/env bash
# Set up the environment if need be, then run the tests: tools/run_tests.sh [pytest options]
#
# Environment: MMDYSAMPLE_STACK (onedl or upstream), MMDYSAMPLE_GOLDEN (folder of golden vectors)
# and MMDYSAMPLE_DATA (folder of real images); tests that need an unset folder are skipped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

stack=${MMDYSAMPLE_STACK:-onedl}
venv=.venv
[[ $stack == onedl ]] || venv=.venv-$stack

tools/setup_env.sh --stack "$stack" --venv "$venv"
# One process per core up to four, each with one thread: a process holds about a gigabyte.
workers=$(($(nproc) < 4 ? $(nproc) : 4))
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec "$venv/bin/python" -m pytest -n "$workers" --dist worksteal --durations=25 "$@"
