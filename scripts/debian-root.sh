#!/usr/bin/env bash
# Makes a Debian of another release for the tests to run in, and keeps it: debian-root.sh SUITE
# Prints its folder, which is in the user's cache; what it does it says on standard error. Ends with 3 where no Debian
# can be made here: neither root nor sudo, no namespaces, no Debian to make it from. What fails on the way is an error.
#
# Packages come from where this Debian's own come from: its mirror, proxies and passwords are apt's, as configured
# here (elsewhere, DEBIAN_MIRROR=URL names one); pip's configuration and the certificates are this machine's, too.
set -euo pipefail
cd "$(dirname "$0")"
suite=$1
cache=${XDG_CACHE_HOME:-$HOME/.cache}/async-signals
root=$cache/debian-$suite
# What is kept is brought up to date after so many days: forky moves on.
days=7
# The servers, and what builds the Python packages that have no wheel.
packages="ca-certificates python3 python3-venv python3-dev gcc libc6-dev libcrypt-dev rabbitmq-server redis-server valkey-server postgresql"

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
as_root() { ./as-root.sh "$@"; }
cannot() {
    say "no Debian $suite on this machine: $*"
    exit 3
}
failed() {
    say "making the Debian $suite failed: $*"
    exit 1
}

mirror() {
    # shellcheck disable=SC2016 -- apt's own placeholders
    apt-get indextargets --format '$(ORIGIN) $(LABEL) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
        sed -n 's/^Debian Debian //p' | head -n 1
}

# Files of this machine's that the root has to have, too; they may have changed since it was made.
configure() {
    as_root mkdir -p "$1/etc/apt/apt.conf.d" "$1/etc/ssl/certs" "$1/usr/sbin"
    # A release that is not out yet is published when it is; a root needs no recommendation and no old package file.
    {
        echo 'Acquire::Check-Valid-Until "false";'
        echo 'APT::Install-Recommends "false";'
        echo 'APT::Keep-Downloaded-Packages "false";'
        apt-config dump 2>/dev/null | grep -E '^Acquire::(https?|ftp)::' || true
    } | as_root tee "$1/etc/apt/apt.conf.d/90tests" >/dev/null
    [ ! -d /etc/apt/auth.conf.d ] || as_root cp -rL /etc/apt/auth.conf.d "$1/etc/apt/"
    # No package starts a server.
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$1/usr/sbin/policy-rc.d" >/dev/null
    as_root chmod +x "$1/usr/sbin/policy-rc.d"
}

make_root() {
    local from script=()
    from=${DEBIAN_MIRROR:-$(mirror)}
    [ -n "$from" ] || cannot "apt says of no Debian mirror here; DEBIAN_MIRROR=URL names one"
    # A debootstrap that is older than the release makes it as it makes any.
    [ -e "/usr/share/debootstrap/scripts/$suite" ] || script=(/usr/share/debootstrap/scripts/sid)
    say "making a Debian $suite, which takes some minutes: $root"
    as_root rm -rf "$root.new"
    as_root debootstrap --variant=minbase "$suite" "$root.new" "$from" "${script[@]}" >&2 || failed "debootstrap"
    configure "$root.new"
    bring_up_to_date "$root.new" || failed "its packages could not be installed"
    as_root mv "$root.new" "$root"
}

bring_up_to_date() {
    # shellcheck disable=SC2086 -- a list of package names
    ./in-root.sh "$1" sh -euc '
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -q
        apt-get full-upgrade -y -q
        apt-get install -y -q "$@"
        apt-get clean' - $packages >&2
    echo "$packages" | as_root tee "$1/.packages" >/dev/null
}

[ -r /etc/debian_version ] && command -v apt-get >/dev/null || cannot "it is made by debootstrap, from a Debian"
command -v unshare >/dev/null || cannot "unshare is missing"
as_root true 2>/dev/null || cannot "making it, and running in it, needs root or sudo"
as_root unshare --mount --pid --fork --net true 2>/dev/null || cannot "this machine allows no namespaces"
if ! as_root sh -c 'command -v debootstrap' >/dev/null; then
    say "installing debootstrap"
    as_root apt-get update -q >&2 || true
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends debootstrap >&2 ||
        failed "debootstrap cannot be installed"
fi

mkdir -p "$cache"
if [ ! -e "$root/.packages" ]; then
    make_root
else
    configure "$root"
    if [ "$(cat "$root/.packages")" != "$packages" ]; then
        bring_up_to_date "$root" || failed "its packages could not be installed"
    elif [ -n "$(find "$root/.packages" -mtime +$days)" ]; then
        bring_up_to_date "$root" || say "Debian $suite could not be brought up to date; it stays as it was"
    fi
fi
echo "$root"
