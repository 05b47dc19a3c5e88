# shellcheck shell=bash
# Sourced by the other scripts: commands are printed before they run, --dry-run (the first argument)
# only prints them, and a run that was stopped or killed is started again.

usage() {  # the comment at the top of the script
  sed -nE '2,/^([^#]|#SBATCH)/s/^# //p' "launch/$(basename "$0")" >&2
  exit 2
}
dry_run=0
case ${1:-} in
  --dry-run) dry_run=1; shift ;;
  -h | --help) usage ;;
esac

quoted() {  # the words as one could type them
  local word line="" quote="'\\''"
  for word; do
    case $word in
      '' | *[!A-Za-z0-9_./:=,@%+-]*) word="'${word//\'/$quote}'" ;;
    esac
    line+=" $word"
  done
  echo "${line# }"
}
show() { echo "+ $(quoted "$@")"; }
run() { show "$@"; [ "$dry_run" = 1 ] || "$@"; }

gpu_environment() {
  run .venv/bin/python -c 'import jax; jax.devices("cuda")'  # fails where JAX would take the CPU
  run export XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.9}"
  # O1 overlaps communication with arithmetic; one card has nothing to overlap
  if [ "$(nvidia-smi -L 2>/dev/null | wc -l)" -gt 1 ]; then
    run export JAX_OPTIMIZATION_LEVEL="${JAX_OPTIMIZATION_LEVEL:-O1}"
  fi
}

newest_step() {  # of the checkpoints of OUT; nothing where there are none or they cannot be listed
  local list='import sys; from jalign import store; print(*store.as_path(sys.argv[1]).iterdir(), sep="\n")'
  case $1 in
    # by what the run itself writes with; a machine that only asks for a TPU may have gcloud alone
    *://*) .venv/bin/python -c "$list" "$1/checkpoints" || gcloud storage ls "$1/checkpoints/" ;;
    *) ls "$1/checkpoints" ;;
  esac 2>/dev/null | sed -nE 's#^(.*/)?([0-9]+)/?$#\2#p' | sort -n | tail -1 || true
}

# A script may say otherwise which codes are started again, what comes first, how to stop the run.
restartable() { [ "$1" -eq 42 ] || [ "$1" -ge 127 ]; }
prepare() { :; }
stop_run() { kill -TERM "$child" 2>/dev/null || true; }
# keep_running OUT COMMAND ...: run it again while its exit code is restartable; return the last.
# Gives up after JALIGN_RESTARTS restarts in a row that brought no new checkpoint. SIGTERM or ^C
# ends the run for good.
keep_running() {
  local out=$1 limit=${JALIGN_RESTARTS:-3} in_vain=0 code again before newest
  shift; stopped=0 child=
  [ "$dry_run" = 1 ] || before=$(newest_step "$out")
  while true; do
    prepare
    show "$@"
    [ "$dry_run" = 0 ] || return 0
    "$@" &
    child=$!
    trap 'stopped=1 again=1; stop_run' TERM INT
    again=1
    while [ "$again" = 1 ]; do  # a signal ends the wait, not the run
      again=0 code=0; wait "$child" || code=$?
    done
    trap - TERM INT
    if [ "$stopped" = 1 ] || ! restartable "$code"; then return "$code"; fi
    newest=$(newest_step "$out")
    if [ "$newest" = "$before" ]; then in_vain=$((in_vain + 1)); else in_vain=0; fi
    before=$newest
    if [ "$in_vain" -gt "$limit" ]; then
      echo "exit code $code; $limit restarts brought no new checkpoint in $out: giving up" >&2
      return "$code"
    fi
    echo "exit code $code, newest checkpoint ${newest:-none}: starting again"
    sleep "${JALIGN_RESTART_WAIT_S:-5}"
  done
}
