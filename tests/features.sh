#!/bin/sh
# `make features`: the SDK compiles with no feature, with each one alone, and with all of them.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"

features=$(sed -n '/^\[features\]/,/^\[dependencies\]/s/^\([a-z0-9]*\) = .*/\1/p' melange-remote-sdk/Cargo.toml | grep -v '^default$')
check() {
  printf '== features: %s\n' "${1:-none}" >&2
  cargo check --quiet -p melange-remote-sdk --no-default-features --features "$1"
}
check ""
for feature in $features; do
  check "$feature"
done
check "$(echo "$features" | tr '\n' ',')"
