#!/usr/bin/env bash
# Train under Slurm: [GPUS=8] tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options]
# GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS are read from the environment too.
set -euo pipefail
partition=${1:?usage: slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options]}
job=${2:?job name} config=${3:?config} work_dir=${4:?work dir}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
gpus=${GPUS:-8}
per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}

# SRUN_ARGS is split into words on purpose.
# shellcheck disable=SC2086
exec srun --partition="$partition" --job-name="$job" --kill-on-bad-exit=1 \
    --gres=gpu:"$per_node" --ntasks="$gpus" --ntasks-per-node="$per_node" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" ${SRUN_ARGS:-} \
    python -u "$here/train.py" "$config" --work-dir "$work_dir" --launcher slurm "${@:5}"
