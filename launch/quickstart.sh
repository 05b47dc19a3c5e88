#!/usr/bin/env bash
# Install jalign into .venv and align the small model it carries: about two minutes on two CPU cores
# after the install.
# usage: bash launch/quickstart.sh [--dry-run] [--key value ...]
#   Options override configs/quickstart.yaml. Afterwards `source .venv/bin/activate` puts jalign on
#   the PATH. PYTHON=python3.12 sets the interpreter (3.11, newer).
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/venv.sh
jalign_install "."
run exec .venv/bin/jalign train configs/quickstart.yaml "$@"
