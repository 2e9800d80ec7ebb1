#!/bin/sh
# Runs a command and writes down how many seconds it took: timed.sh FILE NAME COMMAND...
set -u
file=$1 name=$2
shift 2
mkdir -p "$(dirname "$file")"
began=$(date +%s)
"$@"
status=$?
echo "$(($(date +%s) - began)) $name" >>"$file"
exit "$status"
