#!/bin/sh
# Runs the Python tests on another Django: scripts/test-django.sh PYTHON 6.1 [pytest's arguments]
# The wheel in dist/ is the one that is tested: built once, for the stable ABI.
set -eu
cd "$(dirname "$0")/.."
python=$1 django=$2
shift 2
venv=target/django-$django
wanted=target/django-$django.txt

mkdir -p target
{
    grep -v '^Django==' requirements/dev.txt
    echo "Django~=$django.0"
} >"$wanted.new"
if [ -x "$venv/bin/python" ] && cmp -s "$wanted.new" "$wanted"; then
    rm "$wanted.new"
else
    mv "$wanted.new" "$wanted"
    scripts/venv.sh "$python" "$venv" "$wanted" || { rm "$wanted"; exit 1; }
fi
"$venv/bin/python" -m pip install --disable-pip-version-check --quiet --force-reinstall --no-deps --no-index dist/*.whl
printf '\033[1m==> Python tests on %s, Django %s\033[0m\n' "$("$venv/bin/python" --version)" \
    "$("$venv/bin/python" -c 'import django; print(django.__version__)')"
"$venv/bin/python" -m pytest "$@"
