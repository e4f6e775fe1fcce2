#!/usr/bin/env bash
# Runs the fast tests of the training loop against the oldest Lightning of the declared range, or
# against the version given: scripts/test-lightning-range.sh [2.5.0]
# It is installed into a folder of its own; everything else comes from the environment in use.
set -euo pipefail
cd "$(dirname "$0")/.."
version=${1:-2.5.0}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python -m pip install --quiet --disable-pip-version-check --no-deps --target "$folder" "lightning==$version"
export PYTHONPATH="$folder:$PWD/src" OMP_NUM_THREADS=1
python -c 'import lightning; print("Lightning", lightning.__version__)'
exec python -m pytest -q tests/training/loop tests/training/callbacks/test_step_guard.py \
  tests/utils/test_lightning_adapter.py -k "not without_an_attribute"
