#!/bin/sh
# `make corpus-build`: sets everything up, then builds Wolfi's definitions unmodified; arguments go to `test-corpus`.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
. "$root/tests/setup.sh"
cd "$root"

need bwrap bubblewrap
need newuidmap uidmap
need cc gcc libc6-dev
need xz xz-utils
command -v cargo > /dev/null || fail "a Rust toolchain is needed"

say "building"
cargo build --release -p melange-cli -p test-corpus
say "Wolfi's definitions"
exec "$target/release/test-corpus" --melange "$target/release/melange" --out "$target/corpus-build" "$@"
