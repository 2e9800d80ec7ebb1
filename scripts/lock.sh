#!/bin/sh
# Resolves requirements/dev.in into requirements/dev.txt. A Python 3.11 does it: what it can install,
# the newer ones can install too.
set -eu
cd "$(dirname "$0")/.."
python=$(command -v python3.11 || scripts/find-python.sh 3.11)
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || {
    echo "The lock file is written under Python 3.11, the oldest supported; this is $("$python" --version)" >&2
    exit 1
}
venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
"$python" -m venv "$venv"
"$venv/bin/python" -m pip install --disable-pip-version-check -r requirements/dev.in
{
    echo "# Written by \`make lock\` from dev.in; do not edit."
    "$venv/bin/python" -m pip freeze --disable-pip-version-check
} >requirements/dev.txt
