#!/bin/sh
# From a definition to a running program: builds GNU hello from its upstream tarball through melange-server in
# the embedded sandbox, verifies and installs the package, and runs it. Leaves nothing running.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
. "$root/tests/setup.sh"
cd "$root"

need bwrap bubblewrap
need slirp4netns slirp4netns
need newuidmap uidmap
need cc gcc libc6-dev
need curl curl
command -v cargo > /dev/null || fail "a Rust toolchain is needed"

case "${DEMO_PROFILE:-release}" in
  release) what="--release -p melange-server -p melange-cli -p test-distro"; bin=$target/release ;;
  # As the tests have built it: with other targets cargo would choose other features, and compile all of it again.
  *) what="--workspace --all-targets"; bin=$target/debug ;;
esac
say "building the programs"
# shellcheck disable=SC2086 # several arguments
cargo build $what
make_distro "$bin/test-distro"

work=$(mktemp -d "$target/demo.XXXXXX")
server=
cleanup() {
  status=$?
  trap - EXIT INT TERM
  if [ -n "$server" ]; then
    kill "$server" 2> /dev/null || true
    wait "$server" 2> /dev/null || true
  fi
  [ "$status" = 0 ] || { echo "the server's log:" >&2; tail -n 20 "$work/server.log" >&2 || true; }
  rm -rf "$work"
  exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

melange=$bin/melange
say "a key to sign with"
"$melange" keygen --key-size 2048 "$work/demo.rsa"

say "starting melange-server"
"$bin/melange-server" --listen-addr 127.0.0.1:0 --port-file "$work/port" \
  --output-dir "$work/output" --state-dir "$target/demo-state" --signing-key "$work/demo.rsa" \
  --repository "$distro" --keyring "$distro/keys/test-distro.rsa.pub" --cache-dir "$distro/cache" \
  2> "$work/server.log" &
server=$!
tries=0
until [ -s "$work/port" ]; do
  kill -0 "$server" 2> /dev/null || fail "the server did not start"
  tries=$((tries + 1))
  [ "$tries" -lt 300 ] || fail "the server did not say its port"
  sleep 0.1
done
MELANGE_SERVER=http://127.0.0.1:$(cat "$work/port")
export MELANGE_SERVER

say "melange remote submit examples/hello/hello.yaml --wait"
"$melange" remote submit examples/hello/hello.yaml --wait --output json > "$work/job.json"
job=$(sed -n 's/^  "id": "\(.*\)",$/\1/p' "$work/job.json" | head -n 1)

say "melange remote get"
"$melange" remote get "$job" --out-dir "$work/packages"

say "melange apk verify"
"$melange" apk verify --keyring "$work/demo.rsa.pub" "$work"/packages/*/*.apk

say "melange apk install, into a scratch root"
"$melange" apk install --root "$work/root" \
  --repository "$work/packages" --repository "$distro" \
  --keyring "$work/demo.rsa.pub" --keyring "$distro/keys/test-distro.rsa.pub" hello

say "running it"
bwrap --ro-bind "$work/root" / --unshare-all --die-with-parent /usr/bin/hello

say "done; what next?"
cat >&2 <<TEXT
  $bin/melange-server --help          start a server of your own
  $bin/melange remote submit --help   hand in a definition of your own
  $bin/melange build --help           build without a server
  cargo run --example 01_in_process   use the library
TEXT
