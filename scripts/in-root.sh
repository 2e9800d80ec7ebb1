#!/usr/bin/env bash
# Runs a command in a root that debian-root.sh made: in-root.sh [--tests] ROOT COMMAND...
#
# The checkout is at its own path there, and the working directory. Mounts and processes are the command's own: nothing
# of them is left when it ends, however it ends. Its environment is a new one, with this machine's words on pip, proxies
# and certificates. As root; with --tests as whoever calls, in a network where there is nobody else.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
namespaces=(--mount --pid --fork --kill-child)
user=0:0
if [ "$1" = --tests ]; then
    shift
    namespaces+=(--net)
    user=$(id -u):$(id -g)
fi
root=$1
shift

kept=()
while IFS= read -r name; do
    case $name in
    PIP_* | *_proxy | *_PROXY | SSL_CERT_* | REQUESTS_CA_BUNDLE | CURL_CA_BUNDLE | CI | TERM | TESTS_*)
        kept+=("$name=${!name}")
        ;;
    esac
done < <(compgen -e)
# Folders of this machine in which pip is told to look for packages.
folders=
for word in ${PIP_FIND_LINKS:-}; do [ ! -d "$word" ] || folders+=" $word"; done

# shellcheck disable=SC2016 -- expanded by the inner shell
exec "$here/scripts/as-root.sh" unshare "${namespaces[@]}" sh -euc '
    root=$1 here=$2 folders=$3 config=$4 user=$5
    shift 5
    mount --make-rprivate /
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    for folder in run tmp; do
        mount -t tmpfs -o mode=1777 tmpfs "$root/$folder"
    done
    for folder in "$here" $folders; do
        mkdir -p "$root$folder"
        mount --bind "$folder" "$root$folder"
    done
    # How to reach package registries is as this machine says just now.
    for file in /etc/resolv.conf /etc/hosts /etc/pip.conf; do
        [ ! -e "$file" ] || cp -L "$file" "$root$file"
    done
    if [ -s /etc/ssl/certs/ca-certificates.crt ]; then
        mkdir -p "$root/etc/ssl/certs"
        cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
    fi
    if [ -e "$config/pip/pip.conf" ]; then
        mkdir -p "$root/etc/xdg/pip"
        cp -L "$config/pip/pip.conf" "$root/etc/xdg/pip/"
    fi
    ip link set lo up # which a network of its own does not begin with
    mkdir -m 700 "$root/tmp/home"
    chown "$user" "$root/tmp/home"
    # PostgreSQL asks who runs it.
    grep -q "^[^:]*:[^:]*:${user%:*}:" "$root/etc/passwd" ||
        echo "tests:x:$user::/tmp/home:/bin/sh" >>"$root/etc/passwd"
    # What pip has fetched and built is for the next time, too.
    mkdir -p "$root/var/cache/pip"
    chown "$user" "$root/var/cache/pip"
    exec chroot "$root" setpriv --reuid "${user%:*}" --regid "${user#*:}" --clear-groups \
        env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        HOME=/tmp/home PIP_CACHE_DIR=/var/cache/pip LANG=C.UTF-8 "$@"' \
    - "$root" "$here" "$folders" "${XDG_CONFIG_HOME:-$HOME/.config}" "$user" "${kept[@]}" \
    sh -euc 'cd "$1"; shift; exec "$@"' - "$here" "$@"
