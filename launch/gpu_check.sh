#!/usr/bin/env bash
# Check jalign on one NVIDIA GPU (80 GB or more) in nine minutes: doctor, CUDA tests, then speed and
# peak memory of published sizes with random weights and tokens. Needs no network.
# usage: bash launch/gpu_check.sh [--dry-run] [--small] [OUT]
#   OUT (runs/gpu_check) gets check.json, check.md and check.log; the same command goes on with what
#   is missing or failed, also from a check.json that another machine left there. Exits with 0 once
#   every part has ended well. --small takes tiny sizes, for a CPU. WHEELS=DIR: install the wheels of
#   launch/gpu_wheels.sh into a folder of its own first. PYTHON=python3
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/run.sh
small=0
if [ "${1:-}" = --small ]; then small=1; shift; fi
out=${1:-runs/gpu_check} python=${PYTHON:-python3}

if [ -n "${WHEELS:-}" ]; then
  site=${TMPDIR:-/tmp}/jalign-gpu-check-site
  run "$python" -m pip install --quiet --no-index --no-deps --no-compile --upgrade --target "$site" "$WHEELS"/*.whl
  run export PYTHONPATH="$site:."
else
  run export PYTHONPATH=".${PYTHONPATH:+:$PYTHONPATH}"
fi
run export HF_HUB_OFFLINE=1 XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.9}"

# a part is a line of words
run_python=$(quoted "$python") jalign="$(quoted "$python") -m jalign"
steps="--steps 4 --warmup 2 --" pairs="--batch_size 16" target=h200
tiny_llama=TinyLlama/TinyLlama_v1.1 gemma=google/gemma-2b decoded=meta-llama/Meta-Llama-3-8B
length="--prompt 128 --new 256 --repeats 2"
rl="--rollout.prompts 32 --rollout.responses 8 --batch_size 32 --data.max_tokens 16384"
rl+=" --data.max_prompt_len 256 --rollout.max_new_tokens 256"
if [ "$small" = 1 ]; then
  steps="--steps 1 --warmup 1 --" target=v5e-1
  tiny_llama=embedded gemma=embedded decoded=embedded length="--prompt 8 --new 8 --repeats 1"
  pairs="--batch_size 4 --data.max_prompt_len 16 --data.max_response_len 16 --data.max_tokens 512"
  rl="--rollout.prompts 4 --rollout.responses 2 --batch_size 4 --data.max_tokens 512"
  rl+=" --data.max_prompt_len 16 --rollout.max_new_tokens 16"
fi
dpo="dpo/tinyllama_1b_full_h200" adapters="dpo/mistral_7b_lora_h200"
full="$pairs --model.path $tiny_llama" gemma="$pairs --model.path $gemma" lora=$pairs
grpo="$rl --model.path $tiny_llama --model.remat full"
if [ "$small" = 1 ]; then lora+=" --model.path embedded"; fi
qlora="$lora --model.quant nf4"
tests="-m pytest -q -W default -p no:cacheprovider --confcutdir tests/gpu"

# part NAME SECONDS COMMAND ...: by value, since what does not fit into the time is left for the next
# call; a CPU may be slow
parts=()
part() {
  parts+=("$1 $((small ? 3600 : $2)) ${*:3}")
  [ "$dry_run" = 0 ] || echo "+ ${*:3}  # $1, at most $2 s"
}
plan="env JAX_PLATFORMS=cpu $jalign plan"
to="--target $target --json /dev/stdout"
part doctor 40 "$jalign doctor --json"
# one of the tests starts processes, for which memory has to be left
part cuda_tests 150 "env XLA_PYTHON_CLIENT_PREALLOCATE=false $run_python $tests tests/gpu"
part tinyllama_full 75 "$jalign bench step --config $dpo --random $steps $full"
part mistral_7b_lora 90 "$jalign bench step --config $adapters --random $steps $lora"
part mistral_7b_qlora 90 "$jalign bench step --config $adapters --random $steps $qlora"
part decode_32 60 "$jalign bench sample --model $decoded --rows 32 $length"
part grpo 75 "$jalign bench step --config tiny/grpo --random $steps $grpo"
part gemma_2b_full 75 "$jalign bench step --config $dpo --random $steps $gemma"
part decode_1 60 "$jalign bench sample --model $decoded --rows 1 $length"
part decode_128 60 "$jalign bench sample --model $decoded --rows 128 $length"
part plan_tinyllama_full 60 "$plan $dpo $to $full"
part plan_mistral_7b_lora 60 "$plan $adapters $to $lora"
part plan_mistral_7b_qlora 60 "$plan $adapters $to $qlora"
part plan_gemma_2b_full 60 "$plan $dpo $to $gemma"
part plan_grpo 90 "$plan tiny/grpo $to $grpo"

# with half a minute for what comes before
seconds=510
if [ "$small" = 1 ]; then seconds=36000; fi
[ "$dry_run" = 0 ] || exit 0
exec "$python" -m jalign bench parts --out "$out" --seconds "$seconds" "${parts[@]}"
