#!/bin/sh
# `make deny`: checks the dependencies by deny.toml. Advisories need their database from the internet; where it cannot
# be fetched that is said, and everything else is checked all the same.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
version=0.20.2

if ! cargo deny --version 2> /dev/null | grep -q " $version\$"; then
  printf '== installing cargo-deny %s\n' "$version" >&2
  # Without optimisation, which takes longer than it saves.
  cargo install --quiet --locked --debug --target-dir "${CARGO_TARGET_DIR:-$root/target}/tools" "cargo-deny@$version"
fi
cargo deny --log-level warn check bans licenses sources
if cargo deny --log-level error fetch db > /dev/null 2>&1; then
  cargo deny --log-level warn check advisories
else
  printf '== NOT CHECKED: advisories; their database cannot be fetched here\n' >&2
fi
