#!/usr/bin/env bash
# Installs what the tests need beside the Rust toolchain, and nothing that is there already: cargo-nextest, Chromium,
# PostgreSQL, PgBouncer, nginx and curl (by apt), the packages of peers and clients (by npm and pip, pinned). A second run only looks. `make prepare` and `make test` call it.
set -euo pipefail

tests=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
missing=()

main() {
  one_at_a_time
  need_tools
  need_nextest
  need_packages
  if ((${#missing[@]})); then
    printf 'make test needs:\n' >&2
    printf '  - %s\n' "${missing[@]}" >&2
    exit 1
  fi
  node_modules "$tests/peers/oidc-provider"
  node_modules "$tests/browser"
  node_modules "$tests/clients"
  python_environment "$tests/.venv" "$tests/peers/nanoidp/requirements.txt"
  python_environment "$tests/clients/.venv" "$tests/clients/requirements.txt"
}

# Two runs in one checkout would install over each other.
one_at_a_time() {
  exec 9<"${BASH_SOURCE[0]}"
  if has flock; then flock 9; fi
}

need_tools() {
  has cargo || missing+=("Rust: https://rustup.rs")
  has cc || missing+=("a C compiler: apt-get install build-essential")
  has python3 || missing+=("Python 3: apt-get install python3 python3-venv")
  if ! has npm || ! node -e 'process.exit(process.versions.node.split(".")[0] >= 20 ? 0 : 1)' 2>/dev/null; then
    missing+=("Node.js 20 or later with npm: https://nodejs.org")
  fi
}

need_nextest() {
  has cargo || return 0
  cargo nextest --version >/dev/null 2>&1 && return
  say "installing cargo-nextest"
  cargo install cargo-nextest --locked --version 0.9.143 ||
    missing+=("cargo-nextest: cargo install cargo-nextest --locked --version 0.9.143")
}

# Debian's packages, all in one go, if this user may install any.
need_packages() {
  local wanted=()
  [ -x "${CHROMIUM:-/usr/bin/chromium}" ] || wanted+=(chromium chromium-driver fonts-liberation)
  local postgres=(/usr/lib/postgresql/*/bin/initdb)
  has initdb && has postgres || [ -x "${postgres[-1]}" ] || wanted+=(postgresql)
  has pgbouncer || [ -x /usr/sbin/pgbouncer ] || wanted+=(pgbouncer)
  has nginx || [ -x /usr/sbin/nginx ] || wanted+=(nginx)
  has curl || wanted+=(curl)
  has openssl || wanted+=(openssl)
  if has python3 && ! python3 -c 'import ensurepip, venv' 2>/dev/null; then wanted+=(python3-venv); fi
  ((${#wanted[@]})) || return 0

  local as_root=()
  if [ "$(id -u)" != 0 ]; then as_root=(sudo -n); fi
  if has apt-get && "${as_root[@]}" true 2>/dev/null; then
    say "installing ${wanted[*]}"
    if "${as_root[@]}" apt-get update -qq &&
      "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${wanted[@]}" </dev/null >/dev/null; then
      return
    fi
  fi
  missing+=("${wanted[*]}: apt-get update && apt-get install ${wanted[*]} (as root; elsewhere set CHROMIUM to the browser's path)")
}

# `npm ci` in a folder, unless what is installed came from this lock file.
node_modules() {
  local stamp="$1/node_modules/.prepared" now
  now=$(checksum "$1/package-lock.json")
  if [ "$(cat "$stamp" 2>/dev/null)" = "$now" ]; then return; fi
  say "npm ci in ${1#"$tests/"}"
  (cd "$1" && npm ci --no-fund --no-audit --loglevel=error </dev/null >&2)
  echo "$now" >"$stamp"
}

# The same for a Python environment and its list of pinned packages.
python_environment() {
  local stamp="$1/.prepared" now
  now=$(checksum "$2")
  if [ "$(cat "$stamp" 2>/dev/null)" = "$now" ] && "$1/bin/python" -c '' 2>/dev/null; then return; fi
  say "pip install -r ${2#"$tests/"}"
  python3 -m venv --clear "$1"
  "$1/bin/python" -m pip install --quiet --disable-pip-version-check -r "$2" </dev/null >&2
  echo "$now" >"$stamp"
}

checksum() { sha256sum <"$1"; }
has() { command -v "$1" >/dev/null; }
say() { printf 'prepare: %s\n' "$*" >&2; }

main
