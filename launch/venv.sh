# Sourced by the other scripts: `jalign_install SPEC` installs into .venv what is not there yet.

jalign_install() {
  local python=${PYTHON:-python3}
  if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "jalign needs Python 3.11 or newer; $python is $("$python" --version 2>&1). Set PYTHON=..." >&2
    return 2
  fi
  [ -x .venv/bin/python ] || (set -x; "$python" -m venv .venv)
  local wanted; wanted="$1 $(cksum < pyproject.toml)"
  if [ "$(cat .venv/installed 2>/dev/null)" != "$wanted" ]; then
    (set -x; .venv/bin/python -m pip install --quiet --upgrade pip; .venv/bin/python -m pip install --quiet -e "$1")
    echo "$wanted" > .venv/installed
  fi
}
