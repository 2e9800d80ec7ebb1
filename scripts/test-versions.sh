#!/usr/bin/env bash
# Runs the Python tests with other versions than those of requirements/dev.txt: test-versions.sh NAME [pytest's arguments]
#
# requirements/NAME.txt says which; its first line says on which Debian, which debian-root.sh makes, or that it is this
# machine. What is tested is the wheel in dist/, built once for the stable ABI; programs in Rust are built ones, too.
set -euo pipefail
cd "$(dirname "$0")/.."
name=$1
shift
wanted=requirements/$name.txt
suite=$(sed -n '1s/^# On Debian \([a-z]*\).*/\1/p' "$wanted")
venv=$PWD/target/versions/$name
export TESTS_PROGRAMS=$PWD/target/programs

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
not_run() {
    say "NOT RUN: the Python tests on the versions of $wanted${1:+: $1}"
    exit 0
}

if [ -n "$suite" ]; then
    # 3: this machine cannot make it, and has said why.
    root=$(scripts/debian-root.sh "$suite") || { [ $? = 3 ] && not_run; } || exit 1
    python=/usr/bin/python3
    inside() { scripts/in-root.sh "$root" "$@"; }
    tests_inside() { scripts/in-root.sh --tests "$root" "$@"; }
else
    python=$(scripts/find-python.sh 3.11 3.11) || not_run "there is no CPython 3.11"
    inside() { "$@"; }
    tests_inside() { "$@"; }
fi

# dev.txt, but for what is named in the other file; made anew when that changes, and each day for what is newest.
mkdir -p "$venv"
awk -F '[]<>=~!; []' '{ package = tolower($1); gsub("_", "-", package) }
    NR == FNR { if ($1 != "#") named[package] = 1; print; next }
    !(package in named) && $1 != "#"' "$wanted" requirements/dev.txt >"$venv/wanted.txt"
if ! cmp -s "$venv/wanted.txt" "$venv/installed.txt" || [ -n "$(find "$venv/installed.txt" -mtime +0)" ]; then
    say "installing $wanted into ${venv#"$PWD/"}"
    inside "$python" -m venv --clear "$venv/python"
    inside "$venv/python/bin/python" -m pip install --disable-pip-version-check --quiet -r "$venv/wanted.txt"
    cp "$venv/wanted.txt" "$venv/installed.txt"
fi
# shellcheck disable=SC2012 -- the newest of those that were built
wheel=$(ls -t dist/*.whl | head -n 1)
inside "$venv/python/bin/python" -m pip install --disable-pip-version-check --quiet --no-index --force-reinstall \
    --no-deps "$wheel"
# The package must allow what it is tested with.
inside "$venv/python/bin/python" -m pip check
inside "$venv/python/bin/python" tests/django_suites/source.py

say "Python tests on the versions of $wanted"
tests_inside "$venv/python/bin/python" -m pytest "$@"
