#!/usr/bin/env bash
# Install jalign into .venv and align the small model it carries: about two minutes on two CPU cores after the install.
# usage: bash launch/quickstart.sh [--key value ...]     options override configs/quickstart.yaml
#        PYTHON=python3.12 bash launch/quickstart.sh     another interpreter (3.11 or newer)
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/venv.sh
jalign_install "."
set -x
exec .venv/bin/jalign train configs/quickstart.yaml "$@"
