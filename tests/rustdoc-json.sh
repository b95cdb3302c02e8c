#!/bin/sh
# Cargo calls it instead of rustdoc, whose description of a library for programs is no stable feature: allowed for this
# process alone, so that cargo compiles nothing anew.
RUSTC_BOOTSTRAP=1 exec rustdoc "$@"
