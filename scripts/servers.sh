#!/bin/sh
# Installs the servers that the tests start for themselves, redis-server, rabbitmq-server and postgresql, where they
# are missing. With CI set a server that cannot be had is an error; else its tests are skipped, saying so.
set -u

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
has() { command -v "$1" >/dev/null 2>&1; }
# Debian keeps servers in /usr/sbin, which is not on everyone's PATH.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:/opt/homebrew/sbin

missing() {
    has redis-server || has valkey-server || printf 'redis-server '
    has rabbitmq-server || printf 'rabbitmq-server '
    # Debian keeps its programs off the PATH.
    has postgres || ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || printf 'postgresql '
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif has sudo; then sudo "$@"; else
        say "installing needs root or sudo"
        return 1
    fi
}

# A package starts its server as a service; the tests never use it, so it need not run.
no_service() {
    has systemctl && as_root systemctl disable --now "$1" >/dev/null 2>&1
    return 0
}

install() {
    if has apt-get; then
        as_root apt-get update -q || say "the package lists could not be refreshed; trying with what is there"
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" || return 1
        for server in "$@"; do no_service "$server"; done
    elif has brew; then
        brew install $(printf '%s ' "$@" | sed 's/-server//g')
    else
        say "neither apt-get nor brew here: install $* yourself"
        return 1
    fi
}

wanted=$(missing)
[ -z "$wanted" ] && exit 0
say "installing what the tests need and this machine lacks: $wanted"
# shellcheck disable=SC2086 -- a list of package names
install $wanted
wanted=$(missing)
[ -z "$wanted" ] && exit 0
if [ -n "${CI:-}" ]; then
    say "still missing: $wanted(an error, because CI is set)"
    exit 1
fi
say "still missing: $wanted-- the tests that need them will be skipped"
