#!/usr/bin/env bash
# Build the documentation site into site/: tools/build_docs.sh [mkdocs options], e.g. -d FOLDER
#
# The tools go into the environment that MMDYSAMPLE_VENV names (default .venv; made if need be, then
# without PyTorch, which the site does not import). Look at it with: .venv/bin/mkdocs serve
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=${MMDYSAMPLE_VENV:-.venv}
if [[ ! -x $venv/bin/python ]]; then
    python3 -m venv "$venv"
fi

# The requirements of the extra `docs`, so that they stand in one place.
mapfile -t requirements < <("$venv/bin/python" - <<'PYTHON'
try:
    import tomllib
except ImportError:  # Python 3.10
    from pip._vendor import tomli as tomllib

with open('pyproject.toml', 'rb') as file:
    print('\n'.join(tomllib.load(file)['project']['optional-dependencies']['docs']))
PYTHON
)
if ! "$venv/bin/python" -c 'import latex2mathml, material, mkdocs, mkdocstrings_handlers.python' \
    2>/dev/null; then
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --quiet \
        "${requirements[@]}"
fi

export NO_MKDOCS_2_WARNING=1 # Material's note on what comes after MkDocs 1
exec "$venv/bin/python" -m mkdocs build --strict "$@"
