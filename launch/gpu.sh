#!/usr/bin/env bash
# Train on the NVIDIA GPUs of this machine: installs jalign[cuda] into .venv, says what is there,
# trains, and starts again what was preempted or killed.
# usage: bash launch/gpu.sh [--dry-run] CONFIG OUT [--key value ...]
#   Paths are from the repository's root; OUT may be gs://bucket/path or s3://bucket/path. The same
#   command resumes it. JALIGN_RESTARTS=3: restarts in a row without a new checkpoint. XLA's variables
#   are kept as they are set.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/venv.sh
[ $# -ge 2 ] || usage
config=$1 out=$2
shift 2
check_config "$config"
jalign_install ".[cuda,gcs,s3]"
gpu_environment
run .venv/bin/jalign doctor
keep_running "$out" .venv/bin/jalign train "$config" --out "$out" "$@"
