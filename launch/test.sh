#!/usr/bin/env bash
# Install what the tests need into .venv and run them all.
# usage: bash launch/test.sh [--dry-run] [--fast] [pytest arguments]
#        --fast leaves out whole runs, processes and compilers for absent hardware (tests/README.md)
#        JALIGN_PARITY=1 also compares with torch, peft, lm_eval and transformers' server, where they can be installed
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/venv.sh
jalign_install ".[dev,tpu]"
if [ "${JALIGN_PARITY:-0}" = 1 ] && ! .venv/bin/python -c 'import torch, peft, fastapi, uvicorn, lm_eval, langdetect' 2>/dev/null; then
  { run .venv/bin/python -m pip install --quiet "torch==2.13.0" &&
    run .venv/bin/python -m pip install --quiet peft fastapi uvicorn 'lm_eval[ifeval]'; } ||
    echo "torch or peft cannot be installed here: the live comparisons are skipped"
fi
run .venv/bin/ruff check .
run .venv/bin/ruff format --check .
run exec .venv/bin/python -m pytest -n 2 --dist loadfile "$@"
