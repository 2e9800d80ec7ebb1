#!/bin/sh
# Makes the virtual environment of this checkout: scripts/venv.sh PYTHON FOLDER REQUIREMENTS...
set -eu
python=$1 folder=$2
shift 2

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    # Debian packs these apart from Python itself.
    package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    say "$python lacks venv: installing $package"
    root=
    [ "$(id -u)" = 0 ] || root=sudo
    $root apt-get update -q
    $root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q "$package"
fi
say "creating $folder with $("$python" --version)"
"$python" -m venv --clear "$folder"
for file in "$@"; do
    say "installing $file"
    "$folder/bin/python" -m pip install --disable-pip-version-check --progress-bar on -r "$file"
done
