#!/bin/sh
# `make fuzz`: each target for SECONDS_EACH (half an hour), beginning with what the fixtures hold.
set -eu
cd "$(dirname "$0")"
seconds=${SECONDS_EACH:-1800}
cargo +nightly fuzz build --sanitizer none
for target in parse compile; do
  mkdir -p "corpus/$target"
  cargo +nightly fuzz run --sanitizer none "$target" "corpus/$target" \
    ../melange-remote-sdk/fixtures/fuzz ../melange-remote-sdk/fixtures/broken -- \
    -max_total_time="$seconds" -max_len=16384 -timeout=10 -rss_limit_mb=1024 -dict=dictionary -print_final_stats=1
done
