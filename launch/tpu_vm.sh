#!/usr/bin/env bash
# Train on a TPU VM or pod slice of Google Cloud: asks for it in the queue, waits, installs, runs on
# every worker, asks again when it was preempted, and deletes it when the run has ended, however.
# usage: bash launch/tpu_vm.sh [--dry-run] [--spot] [--keep] NAME ZONE TYPE CONFIG OUT [--key value]
#   bash launch/tpu_vm.sh --spot dpo-1 us-west4-a v5litepod-8 configs/dpo/llama3_8b_lora_v5e8.yaml \
#     gs://bucket/dpo-1
#   NAME and OUT are the run: the same command resumes it. OUT must outlive the TPU: a bucket, or a
#   mount of all workers. CONFIG is in this repository. --keep leaves the TPU. RUNTIME=... sets the
#   image. HF_TOKEN_PATH=... is a file with the token for gated models, copied to the workers.
#   The script minds the run over ssh: start it in tmux on a machine that stays up.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/venv.sh
fail() { echo "$1" >&2; exit 2; }
spot='' keep=0
while [[ ${1:-} == --* ]]; do
  case $1 in
    --spot) spot=--spot ;;
    --keep) keep=1 ;;
    *) usage ;;
  esac
  shift
done
[ $# -ge 5 ] || usage
name=$1 zone=$2 type=$3 config=$4 out=$5 && shift 5
case $out in
  gs://* | s3://* | /*) ;;
  *) fail "OUT must outlive the TPU: gs://..., s3://... or a mounted /path, got $out" ;;
esac
case ${RUNTIME:-$type} in
  v4-*) RUNTIME="tpu-ubuntu2204-base" ;;
  v5litepod-*) RUNTIME="v2-alpha-tpuv5-lite" ;;
  v5p-*) RUNTIME="v2-alpha-tpuv5" ;;
  v6e-*) RUNTIME="v2-alpha-tpuv6e" ;;
  "$type") fail "no runtime is known for $type (v4-*, v5litepod-*, v5p-*, v6e-*): set RUNTIME" ;;
esac
check_config "$config"
[ "$dry_run" = 1 ] || command -v gcloud >/dev/null || fail "gcloud is not installed: cloud.google.com/sdk"
[ -r "${HF_TOKEN_PATH:-/dev/null}" ] || fail "no readable file: HF_TOKEN_PATH=$HF_TOKEN_PATH"
archive=${TMPDIR:-/tmp}/jalign-$name.tar.gz
queue=(gcloud compute tpus queued-resources)
tpu=(gcloud compute tpus tpu-vm)
on_all=("${tpu[@]}" ssh "$name" --zone "$zone" --worker=all --command)

look() {  # sets `state`
  local ask=("${queue[@]}" list --zone "$zone" --filter "name~/$name\$" --format "value(state.state)")
  if [ "$dry_run" = 1 ]; then
    show "${ask[@]}"
    state=${state:+ACTIVE}
  else
    state=$("${ask[@]}") || state=UNKNOWN  # it said why; asked again
  fi
  state=${state:-NONE}; echo "$name: $state"
}
send() { [ -z "$1" ] || run "${tpu[@]}" scp "$1" "$name:$2" --zone "$zone" --worker=all; }
prepare() {  # until the TPU is there and has the source
  while true; do
    look
    case $state in
      NONE) run "${queue[@]}" create "$name" --node-id "$name" --zone "$zone" \
        --accelerator-type "$type" --runtime-version "$RUNTIME" ${spot:+"$spot"} ;;
      FAILED | SUSPENDED) clean_up ;;
      ACTIVE) if send "$archive" jalign.tar.gz && send "${HF_TOKEN_PATH:-}" .hf_token
        then return; fi ;;  # else preempted, and the queue does not know yet
    esac
    [ "$dry_run" = 1 ] || sleep 30
  done
}
clean_up() { run "${queue[@]}" delete "$name" --zone "$zone" --force --quiet; }
# gcloud says 1 when the TPU is gone
restartable() { [ "$1" -eq 42 ] || [ "$1" -ge 127 ] || [ "$1" -eq 1 ]; }
stop_run() { run "${on_all[@]}" "bash jalign/launch/tpu_vm_setup.sh --stop" || true; }

own=$config; [ -f "$own" ] || own=''  # one of configs/ by its name
run tar -czf "$archive" pyproject.toml README.md LICENSE jalign configs launch ${own:+"$own"}
[ "$keep" = 1 ] || trap clean_up EXIT
setup="mkdir -p jalign && tar -xzf jalign.tar.gz -C jalign && cd jalign && bash launch/tpu_vm_setup.sh"
train=$(quoted .venv/bin/jalign train "$config" --out "$out" "$@")
variables="JAX_COORDINATOR_ADDRESS=auto${HF_TOKEN_PATH:+ HF_TOKEN_PATH=\$HOME/.hf_token}"
keep_running "$out" "${on_all[@]}" "$setup && exec env $variables $train"
