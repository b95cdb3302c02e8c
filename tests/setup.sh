# What demo and tests share; sourced by scripts that have set `root` to the workspace.

say() { printf '\n== %s\n' "$*" >&2; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# need PROGRAM PACKAGE…: installs the Debian packages when the program is missing.
need() {
  program=$1
  shift
  PATH="$PATH:/usr/sbin:/sbin" command -v "$program" > /dev/null && return 0
  say "installing $*"
  [ -n "${apt_updated:-}" ] || { as_root apt-get update -qq; apt_updated=1; }
  # At run level 1 packages start none of their services: what is needed is started below, and ended.
  as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "$@" > /dev/null
}

target=${CARGO_TARGET_DIR:-$root/target}

# check_room GIGABYTES: tells when the disk has less room than all that follows takes.
check_room() {
  mkdir -p "$target"
  room=$(($(df -Pk "$target" | awk 'END { print $4 }') / 1048576))
  [ "$room" -ge "$1" ] || say "$room GB are free for $target, and what follows takes $1 GB when none of it is there yet"
}

# make_distro BINARY: the test distribution and the upstream tarballs, kept between runs.
make_distro() {
  distro=${MELANGE_TEST_DISTRO:-$target/test-distro}
  say "the test distribution"
  "$1" make --out "$distro"
  "$1" sources --out "$distro/cache"
  export MELANGE_TEST_DISTRO=$distro
}

# make_toolchains BINARY: the distribution's toolchains, kept between runs.
make_toolchains() {
  toolchains=${MELANGE_TEST_TOOLCHAINS:-$target/test-toolchains}
  say "the toolchains of the test distribution"
  "$1" make --suite trixie --profile toolchains --out "$toolchains"
  export MELANGE_TEST_TOOLCHAINS=$toolchains
}

# as_postgres COMMAND…: PostgreSQL refuses to run as root.
as_postgres() {
  (
    cd /
    if [ "$(id -u)" = 0 ]; then exec setpriv --reuid postgres --regid postgres --init-groups "$@"; else exec "$@"; fi
  )
}

# start_postgres SETTINGS: a server of its own in the folder $postgres, reached by $postgres_url.
start_postgres() {
  need psql postgresql
  say "starting PostgreSQL"
  postgres_bin=$(find /usr/lib/postgresql -path '*/bin/initdb' | sort -V | tail -n 1 | xargs dirname)
  postgres=$(mktemp -d /tmp/melange-postgres.XXXXXX)
  [ "$(id -u)" != 0 ] || chown postgres: "$postgres"
  as_postgres "$postgres_bin/initdb" -D "$postgres/data" -U melange -A trust --no-sync > "$postgres/log" 2>&1 ||
    { tail -n 20 "$postgres/log" >&2; fail "initdb"; }
  as_postgres "$postgres_bin/pg_ctl" -D "$postgres/data" -w -s -l "$postgres/data/log" \
    -o "-c listen_addresses='' -c unix_socket_directories=$postgres -c max_connections=300 $1" start ||
    { as_root tail -n 20 "$postgres/data/log" >&2; fail "PostgreSQL did not start"; }
  postgres_url="postgres://melange@localhost/postgres?host=$postgres"
}

# stop_postgres STATUS: ends that server and removes its folder; its last words are shown when something failed.
stop_postgres() {
  [ -n "${postgres:-}" ] || return 0
  as_postgres "$postgres_bin/pg_ctl" -D "$postgres/data" -m immediate -s stop > /dev/null 2>&1 || true
  [ "$1" = 0 ] || as_root tail -n 5 "$postgres/data/log" >&2 || true
  as_root rm -rf "$postgres" || say "left behind: $postgres"
}
