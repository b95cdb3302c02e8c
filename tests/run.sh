#!/bin/sh
# `make test`: sets everything up, then runs every test, the examples and the demo. `make trials`: sets the same up, and
# runs the tests that kill servers and take away what they work with, with many jobs, on release programs.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/tests/setup.sh"
cd "$root"

need bwrap bubblewrap
need slirp4netns slirp4netns
need newuidmap uidmap
need dockerd docker.io
need cc gcc libc6-dev
need git git
need ssh openssh-client
need sshd openssh-server
need curl curl
need xz xz-utils
need setcap libcap2-bin
command -v cargo > /dev/null || fail "a Rust toolchain is needed"

check_room 16
say "building"
cargo build --workspace --all-targets
make_distro "$target/debug/test-distro"
make_toolchains "$target/debug/test-distro"

docker=
stop_services() {
  status=$?
  trap - EXIT INT TERM
  stop_postgres "$status"
  if [ -n "$docker" ]; then
    as_root kill -TERM "$(cat "$docker/docker.pid")" 2> /dev/null || true
    tries=0
    while [ -e "$docker/docker.pid" ] && [ "$tries" -lt 200 ]; do sleep 0.1; tries=$((tries + 1)); done
    if [ -e "$docker/docker.pid" ]; then
      as_root kill -KILL "$(cat "$docker/docker.pid")" 2> /dev/null || true
      sleep 1
    fi
    [ "$status" = 0 ] || tail -n 5 "$docker/log" >&2 || true
    # Where "/" is not shared, dockerd mounts the folder upon itself, and does not always take that away.
    as_root umount "$docker/data" 2> /dev/null || true
    as_root rm -rf "$docker" || say "left behind: $docker"
  fi
  exit "$status"
}
trap stop_services EXIT
trap 'exit 130' INT TERM

answers() { curl -fs --max-time 5 --unix-socket "$1" http://docker/_ping > /dev/null 2>&1; }
if [ -n "${MELANGE_TEST_DOCKER_SOCK:-}" ]; then
  answers "$MELANGE_TEST_DOCKER_SOCK" || fail "no dockerd answers at $MELANGE_TEST_DOCKER_SOCK"
else
  say "starting dockerd"
  docker=$(mktemp -d /tmp/melange-docker.XXXXXX)
  # Limits on step logs would hide lines from the tests about logs.
  as_root env BUILDKIT_STEP_LOG_MAX_SIZE=1073741824 BUILDKIT_STEP_LOG_MAX_SPEED=1073741824 \
    sh -c 'PATH=$PATH:/usr/sbin:/sbin; exec setsid dockerd -H "unix://$1/sock" -G "$2" --data-root "$1/data" --exec-root "$1/exec" \
      --pidfile "$1/docker.pid" > "$1/log" 2>&1 < /dev/null' sh "$docker" "$(id -g)" &
  tries=0
  until answers "$docker/sock"; do
    tries=$((tries + 1))
    [ "$tries" -lt 300 ] || { tail -n 20 "$docker/log" >&2; fail "dockerd did not start"; }
    sleep 0.1
  done
  export MELANGE_TEST_DOCKER_SOCK=$docker/sock
fi

if [ -z "${MELANGE_TEST_POSTGRES:-}" ]; then
  # The tests keep nothing: nobody has to wait for the disk.
  start_postgres "-c fsync=off"
  export MELANGE_TEST_POSTGRES=$postgres_url
fi

if [ "${1:-}" = trials ]; then
  say "trials"
  export MELANGE_TRIAL_JOBS="${MELANGE_TRIAL_JOBS:-1000}" MELANGE_TRIAL_SLOTS="${MELANGE_TRIAL_SLOTS:-4}"
  export MELANGE_TRIAL_PAUSE_MS="${MELANGE_TRIAL_PAUSE_MS:-2}" MELANGE_TRIAL_OUTAGE_MS="${MELANGE_TRIAL_OUTAGE_MS:-20000}"
  export MELANGE_TRIAL_APART_MS="${MELANGE_TRIAL_APART_MS:-600}"
  said=$target/trial
  trial() {
    MELANGE_TRIAL_KILLS=$1 cargo test --release -p melange-server --test binary -- --nocapture --exact "$2" |
      tee "$said"
    grep -q "^test result: ok. 1 passed" "$said" || fail "$2"
  }
  trial 200 kills::a_server_that_is_killed_again_and_again_loses_nothing
  trial 200 kills::a_server_on_postgresql_that_is_killed_again_and_again_loses_nothing
  trial 2 kills::two_servers_share_a_database_and_one_may_die_and_one_may_leave
  trial 20 outages::jobs_outlive_a_daemon_that_is_killed
  for what in a_database_that_goes_away a_storage_that_cannot_be_written a_full_disk; do
    trial 0 "outages::jobs_outlive_$what"
  done
  exit
fi

say "tests"
cargo test --workspace --all-targets
cargo test --workspace --doc

say "examples"
for example in examples/[0-9]*.rs; do
  name=$(basename "$example" .rs)
  say "example $name"
  # Built above: cargo would choose other features for the package alone, and compile all of it again.
  "$target/debug/examples/$name"
done

say "the demo"
DEMO_PROFILE=dev examples/hello/demo.sh
