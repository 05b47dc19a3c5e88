#!/usr/bin/env bash
# On every worker of a TPU VM, before every start: ends what still holds the TPU, and installs
# jalign[tpu] into .venv.
# usage: bash launch/tpu_vm_setup.sh [--dry-run] [--stop]
#   --stop only ends the run, which saves first
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/venv.sh
# A run whose connection broke continues by itself, and two cannot have the TPU.
run pkill -TERM -x jalign || true
run timeout 300 bash -c 'while pgrep -x jalign >/dev/null; do sleep 1; done' ||
  run pkill -KILL -x jalign
[ "${1:-}" != --stop ] || exit 0
if ! new_enough "${PYTHON:-python3}"; then  # images have 3.10
  run python3 -m pip install --quiet --user uv==0.13.9
  run python3 -m uv python install 3.12
  PYTHON=$HOME/.local/bin/python3.12
fi
jalign_install ".[tpu,gcs,s3]"
