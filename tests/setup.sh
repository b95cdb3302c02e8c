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
