#!/bin/sh
# `make bench-queue`: the farm's queue beside job queues of others, in one run, on one PostgreSQL as it comes (with every
# commit on the disk). Columns of the others as of ours.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/tests/setup.sh"
cd "$root"

need node nodejs
need npm npm
say "building"
cargo build --release -p melange-cli
cargo bench -p melange-remote --bench queue --no-run
peers=$target/bench-peers
mkdir -p "$peers"
cp benches/peers/* "$peers"
(cd "$peers" && npm ci --no-audit --no-fund > /dev/null)

trap 'status=$?; trap - EXIT; stop_postgres "$status"; exit "$status"' EXIT
trap 'exit 130' INT TERM
start_postgres ""
number=0
# with_database COMMAND…: on a new database.
with_database() {
  number=$((number + 1))
  psql -X -q -c "CREATE DATABASE bench$number" "$postgres_url"
  BENCH_POSTGRES="postgres://melange@localhost/bench$number?host=$postgres" "$@"
}
peers() {
  printf '%-24s %10s %10s %10s %10s %10s %10s\n' "" "insert /s" "plain /s" "p50 ms" "p99 ms" "WAL B/job" "CPU us/job"
  with_database node "$peers/graphile-worker.mjs"
  with_database node "$peers/pg-boss.mjs"
}
peers
with_database cargo bench -p melange-remote --bench queue
# Once more: the machine may have changed meanwhile.
peers
