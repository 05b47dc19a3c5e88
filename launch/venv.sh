# shellcheck shell=bash
# Sourced by the other scripts: `jalign_install SPEC` installs into .venv what is not there yet.

. launch/run.sh

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

jalign_install() {
  local python=${PYTHON:-python3}
  if [ "$dry_run" = 0 ] && ! new_enough "$python"; then
    echo "jalign needs Python 3.11 or newer; $python is $("$python" --version 2>&1)." \
      "Set PYTHON=..." >&2
    return 2
  fi
  [ -x .venv/bin/python ] || run "$python" -m venv .venv
  local wanted; wanted="$1 $(cksum < pyproject.toml)"
  if [ "$(cat .venv/installed 2>/dev/null)" != "$wanted" ]; then
    run .venv/bin/python -m pip install --quiet --upgrade pip
    run .venv/bin/python -m pip install --quiet -e "$1"
    [ "$dry_run" = 1 ] || echo "$wanted" > .venv/installed
  fi
}

check_config() {  # a file, or one of configs/ by its name: before a machine is asked for
  local file
  for file in "$1" "configs/${1#configs/}" "configs/${1#configs/}.yaml"; do
    if [ -f "$file" ]; then return 0; fi
  done
  echo "no config $1: give a file, or one of configs/ by its name (jalign configs)" >&2
  exit 2
}
