#!/usr/bin/env bash
# Train on a GKE cluster that xpk made (pip install xpk): a JobSet with the restarts of
# gke_jobset_tpu.yaml.
# usage: bash launch/xpk.sh [--dry-run] NAME CLUSTER ZONE TYPE IMAGE CONFIG OUT [--key value ...]
#   bash launch/xpk.sh dpo-1 my-cluster us-east5-b v5litepod-8 \
#     REGION-docker.pkg.dev/PROJECT/REPOSITORY/jalign:tpu \
#     configs/dpo/llama3_8b_lora_v5e8.yaml gs://bucket/dpo-1
#   IMAGE is of launch/Dockerfile.tpu; CONFIG a path in it; OUT a bucket. HF_TOKEN, if it is set, is
#   handed on. Before NAME is used again:
#   xpk workload delete --workload NAME --cluster CLUSTER --zone ZONE
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/run.sh
[ $# -ge 7 ] || usage
name=$1 cluster=$2 zone=$3 type=$4 image=$5 config=$6 out=$7
shift 7
variables=(--env JAX_COORDINATOR_ADDRESS=auto)
[ -z "${HF_TOKEN:-}" ] || variables=(--env-file launch/xpk.env)
# xpk restarts on 42 and from 127 up by itself. Its shell hands SIGTERM to its child, hence exec.
run exec xpk workload create --workload "$name" --cluster "$cluster" --zone "$zone" \
  --tpu-type "$type" --docker-image "$image" \
  --max-restarts 50 --termination-grace-period-seconds 300 \
  "${variables[@]}" \
  --command "$(quoted exec jalign train "$config" --out "$out" "$@")"
