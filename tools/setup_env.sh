#!/usr/bin/env bash
# Make a virtual environment with PyTorch, one OpenMMLab stack and this package.
#
#   tools/setup_env.sh [--stack onedl|upstream] [--venv DIR] [--python PYTHON]
#
# A second call changes nothing and returns at once; after an interruption, call it again.
# Environment: MMDYSAMPLE_TORCH (default torch==2.13.0), FORCE_CUDA=1 (CUDA ops without a GPU at
# hand), MAX_JOBS (compiler processes), and pip's own PIP_* variables.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

stack=onedl venv='' python=''
while (($#)); do
    case $1 in
        --stack) stack=${2:?} && shift 2 ;;
        --venv) venv=${2:?} && shift 2 ;;
        --python) python=${2:?} && shift 2 ;;
        -h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0" && exit ;;
        *) echo "unknown option $1; see --help" >&2 && exit 2 ;;
    esac
done

torch=${MMDYSAMPLE_TORCH:-torch==2.13.0}
case $stack in
    onedl) mmcv=onedl-mmcv==2.3.6 venv=${venv:-.venv} ;;
    upstream) mmcv=mmcv==2.1.0 venv=${venv:-.venv-upstream} ;;
    *) echo "--stack must be onedl or upstream, not $stack" >&2 && exit 2 ;;
esac

total=6 step=0
say() { printf '[setup %s] %s\n' "$stack" "$*"; }
begin() { step=$((step + 1)) && say "$step/$total $*"; }

find_python() {
    local name
    for name in $python python3.11 python3.12 python3.10 python3; do
        if "$name" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' \
            2>/dev/null; then
            command -v "$name" && return
        fi
    done
    echo 'Python 3.11 (or 3.10, 3.12) was not found; name one with --python' >&2
    return 1
}

# What the environment depends on; when it changes, the steps run again.
fingerprint() {
    printf '%s\n' "$stack" "$torch" "$mmcv" "${FORCE_CUDA:-}" "$PWD"
    cat setup.py pyproject.toml tools/setup_env.sh
}
stamp=$venv/.mmdysample-setup
wanted=$(fingerprint | sha256sum | cut -d' ' -f1)
if [[ -x $venv/bin/python && -f $stamp && $(<"$stamp") == "$wanted" ]]; then
    say "$venv is ready"
    exit
fi

start=$SECONDS
begin "virtual environment in $venv"
if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    interpreter=$(find_python)
    say "    using $("$interpreter" --version) at $interpreter"
    "$interpreter" -m venv --clear "$venv"
fi
bin=$(cd "$venv/bin" && pwd)
pip() { "$bin/python" -m pip --disable-pip-version-check --no-input "$@"; }
rm -f "$stamp"

begin "build tools and $torch (minutes on a slow line: the download is hundreds of megabytes)"
pip install 'setuptools>=77,<82' wheel ninja "$torch"
constraints=$venv/constraints.txt # keeps later steps from changing torch
"$bin/python" -c 'import torch; print("torch==" + torch.__version__.split("+")[0])' >"$constraints"

# Compile in a folder that stays, so that an interrupted build goes on with the next file.
compile_mmcv() {
    local source=$cache/source log=$cache/build.log
    say '    No ready-made wheel: compiling its C++ operators against this torch. These are about'
    say '    a hundred files, 10 to 60 minutes by number of cores, once; the wheel is then kept in'
    say "    $cache. The compiler's output goes to $log."
    "$bin/python" -c 'import torch
print("    CUDA operators:", "yes" if torch.cuda.is_available() else "no GPU found, CPU only")'
    if [[ ! -f $source/setup.py ]]; then
        rm -rf "$source" && mkdir -p "$source.part"
        tar -xzf "$1" -C "$source.part" --strip-components=1
        mv "$source.part" "$source"
    fi
    PATH=$bin:$PATH MMCV_WITH_OPS=1 pip wheel -v --no-deps --no-build-isolation \
        --wheel-dir "$cache/built" "$source" 2>&1 | tee "$log" |
        awk 'match($0, /\[[0-9]+\/[0-9]+\]/) {
                 if (n++ % 10 == 0) { print "    compiling " substr($0, RSTART, RLENGTH); fflush() }
             }' || { tail -n 40 "$log" >&2 && return 1; }
    mv "$cache"/built/*.whl "$cache/"
}

begin "$mmcv with its compiled operators"
# Outside the environment, so that a finished build outlives it.
key=$("$bin/python" -VV)$(<"$constraints")$mmcv${FORCE_CUDA:-}
cache=$PWD/.cache/${mmcv/==/-}-$(sha256sum <<<"$key" | cut -c1-12)
mkdir -p "$cache"
if ! compgen -G "$cache/*.whl" >/dev/null; then
    pip download --no-deps --no-build-isolation --dest "$cache/download" "$mmcv"
    if ! mv "$cache"/download/*.whl "$cache/" 2>/dev/null; then
        compile_mmcv "$cache"/download/*.tar.gz
    fi
fi

begin "OpenMMLab ($stack), this package (editable) and what its tests need"
pip install --constraint "$constraints" --no-build-isolation \
    "$cache"/*.whl --editable ".[$stack,cpu,reproduce,tests]"

begin 'panoptic evaluation'
# Its metadata asks for numpy 1, its code does not.
pip install --no-deps panopticapi-lite==0.2.0

begin 'check'
if ! "$bin/python" -W ignore -c 'import torch; from mmcv.ops import nms
nms(torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([1.0]), 0.5)'; then
    say "    The operators in $cache do not run under $torch."
    say '    Delete that folder; if the wheel came from PIP_FIND_LINKS, take it away there.'
    exit 1
fi
"$bin/python" -W ignore - <<'PYTHON'
import mmcv, mmdet, mmengine, mmseg, torch

import mmdysample

for module in (torch, mmcv, mmengine, mmdet, mmseg, mmdysample):
    print(f'    {module.__name__} {module.__version__}')
PYTHON
echo "$wanted" >"$stamp"
say "done in $((SECONDS - start)) s: source $venv/bin/activate"
