#!/usr/bin/env bash
# A private PostgreSQL + TimescaleDB in one command; the system is left as it is.
#   timescaledb.sh up        install, create, start (each only if needed) and print the connection URL
#   timescaledb.sh down      stop it                timescaledb.sh kill       stop it as a power cut would
#   timescaledb.sh url       print the URL          timescaledb.sh psql ...   psql on the running server
#   timescaledb.sh install   binaries only
# Data lives below TSDB_HOME (default: /var/lib/liftwatch for root, else ~/.local/share/liftwatch), unpacked
# binaries below TSDB_CACHE (default: /var/cache/liftwatch for root, else ~/.cache/liftwatch).
# Binaries, first that fits: TSDB_BIN=<bin directory>; a system PostgreSQL with TimescaleDB (Debian 13: apt
# install postgresql-17-timescaledb), unless TSDB_PRIVATE=1; Debian 13's packages, verified by apt, unpacked
# here, with their own libc and run through its loader: the host may be older and the tree may be moved.
# PostgreSQL refuses to run as root: started by root, it runs as "postgres", or else as "nobody".
# TSDB_SETTINGS: further lines for postgresql.conf of a new cluster.
set -euo pipefail

SUITE=trixie PGVER=17
MIRROR=${DEBIAN_MIRROR:-} SECURITY=${DEBIAN_SECURITY_MIRROR:-}   # default: those of this machine's own apt sources
KEYRING=${DEBIAN_KEYRING:-/usr/share/keyrings/debian-archive-keyring.gpg}

say() { printf 'database: %s\n' "$*" >&2; }
die() { say "$*" && exit 1; }
if [[ $EUID -eq 0 ]]; then
  STATE_BASE=/var/lib CACHE_BASE=/var/cache
else
  [[ -n ${HOME:-} ]] || die "HOME is not set, so there is no place for the database: set TSDB_HOME and TSDB_CACHE"
  STATE_BASE=${XDG_DATA_HOME:-$HOME/.local/share} CACHE_BASE=${XDG_CACHE_HOME:-$HOME/.cache}
fi
TSDB_HOME=$(realpath -m "${TSDB_HOME:-$STATE_BASE/liftwatch}")
TSDB_CACHE=$(realpath -m "${TSDB_CACHE:-$CACHE_BASE/liftwatch}")
DATA=$TSDB_HOME/data DB=${TSDB_DB:-liftwatch} DBUSER=${TSDB_USER:-liftwatch}
SOCKET=$TSDB_HOME/run                            # socket paths end at 107 bytes, file names included
[[ ${#SOCKET} -le 85 ]] || SOCKET=/tmp/liftwatch-$(sha256sum <<<"$TSDB_HOME" | cut -c1-16)

RUN_AS=$(id -un)
[[ $EUID -ne 0 ]] || RUN_AS=$(id -un postgres 2>/dev/null || echo nobody)
as_server() (                                    # as the server's account, outside any private directory
  cd / && exec 9>&-                              # the lock must not live on in the server
  [[ $EUID -eq 0 ]] || exec "$@"
  exec setpriv --reuid "$RUN_AS" --regid "$(id -g "$RUN_AS")" --clear-groups "$@"
)

find_bin() {                                     # sets BIN to a PostgreSQL that has TimescaleDB
  local system
  system=$(ls -rv /usr/share/postgresql/*/extension/timescaledb.control 2>/dev/null | head -1 | cut -d/ -f5) || true
  BIN=$TSDB_CACHE/tree/usr/lib/postgresql/$PGVER/bin
  [[ -z $system || -n ${TSDB_PRIVATE:-} ]] || BIN=/usr/lib/postgresql/$system/bin
  BIN=${TSDB_BIN:-$BIN} && [[ -x $BIN/postgres ]]
}

find_mirrors() {                                 # a Debian archive keeps every suite in one place: reuse the host's
  local uri release
  while read -r uri release; do
    case $release in
      *-security) SECURITY=${SECURITY:-$uri} ;;
      *-updates | *-backports* | '') ;;
      *) [[ ! $uri =~ /debian/?$ ]] || MIRROR=${MIRROR:-$uri} ;;
    esac
  done < <(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages')
  [[ -n $MIRROR && -n $SECURITY ]] || die "no Debian archive among this machine's apt sources: set DEBIAN_MIRROR and DEBIAN_SECURITY_MIRROR"
}

unpack_debian() {
  [[ -r $KEYRING && -x /usr/bin/apt-get && -x /usr/bin/dpkg-deb ]] || die "needs apt-get, dpkg-deb and $KEYRING"
  find_mirrors
  WORK=$(mktemp -d "$TSDB_CACHE/unpack.XXXXXX") && trap 'rm -rf "$WORK"' EXIT
  mkdir -p "$WORK"/{lists/partial,cache/archives/partial,debs,root} && touch "$WORK/status"
  printf "deb [signed-by=$KEYRING] %s main\n" "$MIRROR $SUITE" "$SECURITY $SUITE-security" >"$WORK/sources"
  cat >"$WORK/apt.conf" <<CONF
Dir { State "$WORK"; State::lists "$WORK/lists"; State::status "$WORK/status"; Cache "$WORK/cache";
  Etc { sourcelist "$WORK/sources"; sourceparts "/dev/null"; preferences "/dev/null"; preferencesparts "/dev/null"; }; };
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
APT { Sandbox::User "root"; Update::Error-Mode "any"; Install-Recommends "false"; };
Acquire { Languages "none"; Retries "3"; IndexTargets::deb::DEP-11::DefaultEnabled "false"; };
CONF
  local names exe loader elf=usr/lib/postgresql/$PGVER/elf bin=usr/lib/postgresql/$PGVER/bin apt=(apt-get -qq -c "$WORK/apt.conf")
  say "reading the package index of Debian $SUITE"
  "${apt[@]}" update >&2
  # All that PostgreSQL needs, resolved from an empty system, less what only Debian's cluster tooling
  # (perl, debconf, accounts) and the JIT compiler (LLVM) use.
  names=$("${apt[@]}" -s install "postgresql-$PGVER-timescaledb" |
    awk '$1 == "Inst" {print $2}' | grep -E "^(lib|zlib1g|postgresql-(client-)?$PGVER)" |
    grep -vE '^lib(llvm|z3|perl|db5|gdbm|proc2|pam-modules|semanage|sepol|debconf|c-)|-perl$')
  say "downloading and unpacking $(wc -w <<<"$names") packages"
  (cd "$WORK/debs" && "${apt[@]}" download $names >&2 && for deb in *.deb; do dpkg-deb -x "$deb" ../root; done)
  cd "$WORK/root" && rm -rf usr/share/{doc,man,locale,lintian} "${bin%bin}lib"/{bitcode,llvmjit.so}
  loader=$(find usr/lib -name 'ld-linux*.so.*' -print -quit)
  mkdir "$elf"
  for exe in "$bin"/*; do
    mv "$exe" "$elf/"
    cat >"$exe" <<WRAPPER
#!/bin/sh
self=\$(readlink -f -- "\$0"); name=\${self##*/}; root=\${self%/usr/lib/postgresql/*}
exec "\$root/$loader" --inhibit-cache --library-path "\$root/${loader%/*}" --argv0 "\$self" "\$root/$elf/\$name" "\$@"
WRAPPER
    chmod 755 "$exe"
  done
  chmod 755 . && "$bin/postgres" --version >&2 && cd /
  rm -rf "$TSDB_CACHE/tree" && mv "$WORK/root" "$TSDB_CACHE/tree"      # complete or absent, never half
}

install() {
  mkdir -p "$TSDB_CACHE" "$TSDB_HOME" || die "cannot make $TSDB_CACHE and $TSDB_HOME: set TSDB_CACHE and TSDB_HOME"
  if ! find_bin; then
    exec 9>"$TSDB_CACHE/lock" && flock 9         # a second caller waits here
    find_bin || unpack_debian
    exec 9>&-
  fi
  as_server test -x "$BIN/postgres" || die "$RUN_AS cannot reach $BIN: set TSDB_CACHE to a place it can reach"
  as_server test -x "$TSDB_HOME" || die "$RUN_AS cannot reach $TSDB_HOME: set TSDB_HOME to a place it can reach"
}
query() { as_server "$BIN/psql" -X -q -At -v ON_ERROR_STOP=1 -h "$SOCKET" -U "$DBUSER" "$@"; }
url() { local dir=${SOCKET//\//%2F}; echo "postgres://$DBUSER@localhost/$DB?host=${dir// /%20}"; }

own_dir() {                                      # a directory of the server's account alone
  [[ -e $1 ]] || { mkdir -m 700 "$1" && { [[ $EUID -ne 0 ]] || chown "$RUN_AS" "$1"; }; }
  [[ -d $1 && ! -L $1 && $(stat -c %U "$1") == "$RUN_AS" ]] || die "$1 does not belong to $RUN_AS"
}

up() {
  exec 9>"$TSDB_HOME/lock" && flock 9
  if [[ ! -d $DATA ]]; then                      # a socket only this account can open: trust is enough
    rm -rf "$DATA.new" && own_dir "$DATA.new"
    as_server "$BIN/initdb" -D "$DATA.new" -U "$DBUSER" -A trust -E UTF8 --locale=C.UTF-8 --data-checksums >/dev/null
    printf '%s\n' "shared_preload_libraries = 'timescaledb'" "timescaledb.telemetry_level = off" \
      "listen_addresses = ''" "timezone = 'UTC'" "log_timezone = 'UTC'" "${TSDB_SETTINGS:-}" >>"$DATA.new/postgresql.conf"
    mv "$DATA.new" "$DATA"
  fi
  own_dir "$SOCKET"
  local attempt
  for attempt in {1..40}; do                     # a killed server counts as running until its parent has reaped it
    if ! as_server "$BIN/pg_ctl" -D "$DATA" status >/dev/null; then
      as_server "$BIN/pg_ctl" -D "$DATA" -w -s -l "$DATA/server.log" -o "-k '$SOCKET'" start >&2 ||
        { tail -20 "$DATA/server.log" >&2; die "the server did not start"; }
    fi
    ! query -d 'dbname=postgres connect_timeout=5' -c 'SELECT 1' >/dev/null 2>&1 || break
    [[ $attempt -lt 40 ]] || die "the server does not answer: see $DATA/server.log"
    sleep 0.25
  done
  [[ -n $(query -d postgres -c "SELECT 1 FROM pg_database WHERE datname = '$DB'") ]] ||
    query -d postgres -c "CREATE DATABASE \"$DB\""
  query -d "$DB" -c 'SET client_min_messages = error' -c 'CREATE EXTENSION IF NOT EXISTS timescaledb'
  url
}

case ${1:-up} in
  install) install; echo "$BIN" ;;
  up) install; up ;;
  down) [[ ! -e $DATA/postmaster.pid ]] || { find_bin; as_server "$BIN/pg_ctl" -D "$DATA" -w -s -m fast stop; } ;;
  kill) find_bin && as_server "$BIN/pg_ctl" -D "$DATA" status >/dev/null || die "no server runs in $DATA"
    postmaster=$(head -1 "$DATA/postmaster.pid")         # and its children, which could serve for a moment more
    kill -9 "$postmaster" $(grep -lE "^PPid:[[:space:]]+$postmaster\$" /proc/[0-9]*/status 2>/dev/null | cut -d/ -f3) ;;
  url) url ;;
  psql) find_bin || die "nothing installed: $0 up"
    as_server "$BIN/psql" -h "$SOCKET" -U "$DBUSER" -d "$DB" "${@:2}" ;;
  *) die "usage: $0 up|down|kill|install|url|psql" ;;
esac
