#!/bin/sh
# Runs a command as root: as it is, or by sudo. Fails, saying so, where neither is there.
[ "$(id -u)" = 0 ] && exec "$@"
command -v sudo >/dev/null 2>&1 && exec sudo "$@"
echo "this needs root or sudo: $*" >&2
exit 1
