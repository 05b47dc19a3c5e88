#!/usr/bin/env bash
# Every algorithm, full and LoRA, on the same pairs; then the table. A run that is finished is not run again.
# usage: bash configs/real/run_all.sh MODEL_FOLDER PAIRS.jsonl.gz OUT
set -euo pipefail
model=$1 pairs=$2 out=$3
config=$(dirname "$0")/stories15m_cpu.yaml
run() {
  local name=$1; shift
  [ -f "$out/$name/done" ] && return
  (set -x; jalign train "$config" --model.path "$model" --data.train "$pairs" --out "$out/$name" "$@") && touch "$out/$name/done"
}
for algorithm in dpo ipo simpo orpo kto; do
  run "$algorithm-full" --algorithm.name "$algorithm"
  run "$algorithm-lora" --algorithm.name "$algorithm" --model.lora.rank 16 --optim.learning_rate 1e-4
done
run sft-full --algorithm.name sft --optim.learning_rate 5e-5
run sft-lora --algorithm.name sft --model.lora.rank 16 --optim.learning_rate 1e-3
run bradley_terry-full --algorithm.name bradley_terry --optim.learning_rate 3e-5
run bradley_terry-lora --algorithm.name bradley_terry --model.lora.rank 16 --optim.learning_rate 1e-3
python "$(dirname "$0")/table.py" "$out"
