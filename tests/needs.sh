#!/usr/bin/env bash
# Installs the Debian packages that the tests need and this machine lacks. Without the right to do so
# it prints the line to run and exits 1.
set -euo pipefail

missing=()
need() { command -v "$1" >/dev/null || missing+=("$2"); }

need cc gcc                   # SQLite is built from source; rustc links with it
need python3 python3
need node nodejs              # receives events, and drives the browser
need npm npm                  # installs what verifies them
need strace strace            # sees that a record is synced before its call is answered
need sqlite3 sqlite3          # reads the ledger as a biller would
need prlimit util-linux       # bounds what a gate may write
need ip iproute2              # gives a gate a network with a silent name server
need promtool prometheus      # reads deploy/'s rules, and scrapes a gate
need nginx nginx              # reads deploy/balancer.conf, and sends calls by it
[ -e /usr/lib/nginx/modules/ngx_stream_module.so ] || missing+=(libnginx-mod-stream)   # hands connections on by the PROXY protocol
need haproxy haproxy          # the same
need curl curl                # calls on a Unix socket
need amtool prometheus-alertmanager   # reads deploy/'s ways to people
need chromium chromium          # shows and prints the page of a statement, and the status page
need systemd-analyze systemd  # reads deploy/'s unit
need dpkg-deb dpkg            # packs what is shipped
need strip binutils           # leaves the tables of lines out of it
need redis-server redis-server   # holds the windows of replicas; redis-cli comes along
need redis-sentinel redis-sentinel   # says which server is the primary
need faketime faketime        # sets the clock of a store
need nats-server nats-server   # carries records
need openssl openssl          # makes the certificates of a store
[ -d /usr/share/fonts/opentype/noto ] || missing+=(fonts-noto-cjk)   # the page is in Chinese too
[ -f /usr/include/rhonabwy.h ] || missing+=(librhonabwy-dev)   # verifies grants in C
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)

[ ${#missing[@]} -eq 0 ] && exit 0

install="apt-get install --yes --no-install-recommends ${missing[*]}"
if ! command -v apt-get >/dev/null; then
    echo "The tests need what Debian calls: ${missing[*]}" >&2
    exit 1
fi
if [ "$(id -u)" -eq 0 ]; then
    as_root=(env)
elif sudo -n true 2>/dev/null; then
    as_root=(sudo -n env)
else
    echo "The tests need packages that are missing. Run this, then again \`make test\`:" >&2
    echo "  sudo apt-get update && sudo $install" >&2
    exit 1
fi
"${as_root[@]}" apt-get update --quiet
"${as_root[@]}" DEBIAN_FRONTEND=noninteractive $install
