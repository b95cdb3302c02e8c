#!/bin/sh
# `make api-check`: the library's public items, with all features, are those of `melange-remote-sdk/api.txt`, so that a
# change of them is seen in review. `make api` writes the file anew.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/tests/setup.sh"
cd "$root"
# It reads what the rustdoc of rust-toolchain.toml writes; another toolchain needs another version.
version=0.52.0
snapshot=melange-remote-sdk/api.txt

if ! cargo public-api --version 2> /dev/null | grep -q " $version\$"; then
  # The tool is linked with the system's OpenSSL.
  if ! pkg-config --exists openssl 2> /dev/null; then
    as_root apt-get update -qq
    as_root apt-get install -y -qq --no-install-recommends pkg-config libssl-dev > /dev/null
  fi
  say "installing cargo-public-api $version"
  # Without optimisation, which takes longer than it saves.
  cargo install --quiet --locked --debug --target-dir "$target/tools" "cargo-public-api@$version"
fi
[ "${1:-check}" != install ] || exit 0
RUSTDOC="$root/tests/rustdoc-json.sh" cargo rustdoc --quiet -p melange-remote-sdk --lib --all-features \
  -- -Z unstable-options --output-format json
# Without what the compiler or a derive adds to every type.
public_items() { cargo public-api --rustdoc-json "$target/doc/melange_remote_sdk.json" -sss; }
case ${1:-check} in
  write) public_items > "$snapshot" ;;
  check)
    said=$(mktemp)
    trap 'rm -f "$said"' EXIT
    public_items > "$said"
    diff -u "$snapshot" "$said" || {
      printf 'The public items of the library have changed: `make api` writes %s anew.\n' "$snapshot" >&2
      exit 1
    }
    ;;
esac
