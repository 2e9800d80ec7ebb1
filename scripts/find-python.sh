#!/bin/sh
# Prints the first CPython that is at least MAJOR.MINOR (default 3.11), and at most a second one if it is given: on
# PATH, else among pyenv's. Fails, saying what to install, when there is none.
set -u
wanted=${1:-3.11} last=${2:-}

suits() {
    "$1" - "$wanted" "$last" 2>/dev/null <<'PY'
import sys, sysconfig
wanted, last = (tuple(map(int, text.split("."))) if text else (sys.maxsize,) for text in sys.argv[1:])
# The stable ABI that the native module is built for does not cover the free-threaded builds.
usable = sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED")
sys.exit(not (usable and wanted <= sys.version_info[:2] <= last))
PY
}

for name in python3 python3.14 python3.13 python3.12 python3.11 python; do
    if suits "$name"; then
        command -v "$name"
        exit 0
    fi
done
if command -v pyenv >/dev/null 2>&1; then
    for candidate in "$(pyenv root)"/versions/*/bin/python3; do
        if suits "$candidate"; then
            echo "$candidate"
            exit 0
        fi
    done
fi
echo "No CPython >= $wanted${last:+ and <= $last} on PATH. Install one, or name it: make PYTHON=/path/to/python3" >&2
exit 1
