#!/usr/bin/env bash
# Download the wheels that launch/gpu_check.sh needs on a machine without a network, beside what an
# image with jax[cuda13] holds (Linux on x86-64). Prints their size and fails above 60 MB.
# usage: bash launch/gpu_wheels.sh [--dry-run] DIR [PYTHON_VERSION]
#   PYTHON_VERSION of the image: 3.12 (default) or 3.11. HELD="name ...": further distributions that
#   the image holds. JAX="jax==0.11.2": the image's version (jax>=0.10.2). PYTHON=python3
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/run.sh
[ $# -ge 1 ] || usage
dir=$1 version=${2:-3.12} python=${PYTHON:-python3} limit_mb=60
held="jax jaxlib ml-dtypes numpy scipy opt-einsum ${HELD:-}"
# the check reads no data set and asks no hub; uvloop and pydantic only make some of it faster
unread="datasets pyarrow pandas python-dateutil tzdata six dill multiprocess xxhash hf-xet uvloop"
unread+=" pydantic pydantic-core annotated-types typing-inspection"

tags=(--only-binary=:all: --python-version "$version" --implementation cp
  --abi "cp${version/./}" --abi abi3 --abi none --platform any)
for glibc in 2_28 2_27 2_24 2_17; do tags+=(--platform "manylinux_${glibc}_x86_64"); done
tags+=(--platform manylinux2014_x86_64)

names='import json, re, sys, tomllib
canonical = lambda name: re.sub(r"[-_.]+", "-", name).lower()
if len(sys.argv) == 1:
    project = tomllib.load(open("pyproject.toml", "rb"))["project"]
    print(*project["dependencies"], "pytest>=8", sep="\n")
else:
    parts = [x["metadata"] for x in json.load(open(sys.argv[1]))["install"]]
    left = [x for x in parts if canonical(x["name"]) not in sys.argv[2].split()]
    print(*(x["name"] + "==" + x["version"] for x in left), sep="\n")'

run mkdir -p "$dir"
[ "$dry_run" = 1 ] || "$python" -c "$names" > "$dir/wanted.txt"
run "$python" -m pip install --quiet --dry-run --ignore-installed --target "$dir" --report "$dir/report.json" \
  "${tags[@]}" -r "$dir/wanted.txt" "${JAX:-jax>=0.10.2}"
[ "$dry_run" = 1 ] || "$python" -c "$names" "$dir/report.json" "$held $unread" > "$dir/wheels.txt"
run "$python" -m pip download --quiet --no-deps --dest "$dir" "${tags[@]}" -r "$dir/wheels.txt"
[ "$dry_run" = 0 ] || exit 0
bytes=$(cat "$dir"/*.whl | wc -c)
echo "$(find "$dir" -name '*.whl' | wc -l) wheels, $((bytes / 1000000)) MB in $dir"
if [ "$bytes" -gt $((limit_mb * 1000000)) ]; then
  echo "more than $limit_mb MB: name what the image holds with HELD=" >&2
  exit 1
fi
