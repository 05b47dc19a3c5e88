#!/usr/bin/env bash
# Install what the tests need into .venv and run them all.
# usage: bash launch/test.sh [pytest arguments]     JALIGN_PARITY=1 also installs torch and peft for the live comparisons
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/venv.sh
jalign_install ".[dev]"
if [ "${JALIGN_PARITY:-0}" = 1 ]; then
  .venv/bin/python -c 'import torch, peft' 2>/dev/null || .venv/bin/python -m pip install --quiet "torch==2.13.0" peft
fi
set -x
.venv/bin/ruff check .
.venv/bin/ruff format --check .
exec .venv/bin/python -m pytest "$@"
