#!/usr/bin/env bash
# Runs each fuzz target, or those that are named: fuzz/run.sh SECONDS [TARGET…]. Stable Rust: libFuzzer is a library, and what
# it needs of the compiler is a pass of LLVM.
set -euo pipefail
cd "$(dirname "$0")"
seconds=$1
shift
targets=("$@")
[ $# -gt 0 ] || targets=(definition render template token_reply callback discovery import)

host=$(rustc -vV | sed -n 's/^host: //p')
pass="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
pass="$pass -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
# With a target, build scripts and macros are compiled without the pass.
RUSTFLAGS="$pass" "${CARGO:-cargo}" build --release --locked --target "$host" --bins
[ -n "${ONLY_BUILD:-}" ] && exit

seed() { # TARGET NAME, text from standard input
  cat >"corpus/$1/seed-$2"
}

seeds() {
  local unit=$'\x1f'
  case $1 in
  definition)
    for file in ../providers/*.toml targets/steered.toml; do seed "$1" "$(basename "$file")" <"$file"; done
    ;;
  template)
    local n=0
    while IFS= read -r url; do
      n=$((n + 1))
      printf '%s%s/x/{{v}}?y={{v}}%sBearer {{v}}%svalue' "$url" "$unit" "$unit" "$unit" | seed "$1" "url-$n"
    done < <(sed -n 's/.*url = "\([^"]*\)".*/\1/p' ../providers/*.toml | sed 's/{{[a-z_.]*host[a-z_.]*}}/{{h}}/; s/{{[a-z_]*}}/{{v}}/g' | sort -u)
    ;;
  render)
    printf "shop${unit}https://s.example:8443/x${unit}any${unit}eu${unit}https://a.acme.example/b${unit}b.acme.example${unit}learnt" | seed "$1" all
    printf "${unit}http://127.0.0.1${unit}a/../b${unit}us${unit}https://acme.example@evil.example${unit}evil.example#.acme.example${unit}%%2e%%2e" | seed "$1" evil
    ;;
  token_reply)
    printf '\x00{"access_token":"token-a","refresh_token":"r","expires_in":3600,"token_type":"Bearer","scope":"a b","user":{"id":7}}' | seed "$1" plain
    printf '\x00access_token=token-a&expires_in=3600&scope=a%%20b' | seed "$1" form
    printf '\x08{"error":"invalid_grant","error_description":"expired"}' | seed "$1" refused
    for rules in 1 2 3 4 5 6 7; do
      printf '\\x0%s' "$rules" | xargs -0 printf '%b{"ok":true,"code":0,"data":{"token":"e30.eyJleHAiOjE3MDAwMDM2MDB9.c2ln","refresh":"r","expires":"3600","until":"2026-11-22T12:00:00Z","user":{"token":"token-u","expires":"Sun, 22 Nov 2026 12:00:00 GMT"}}}' | seed "$1" "odd-$rules"
    done
    printf '\x01{"ok":false,"code":40105}' | seed "$1" dead
    ;;
  callback)
    printf 'code=c%%23_&state=st&iss=https%%3A%%2F%%2Fas.example&accounts-server=https%%3A%%2F%%2Feu.acme.example&zone=eu&seller=A1' | seed "$1" right
    printf 'auth_code=c&custom=st&zone=us' | seed "$1" renamed
    printf '?error=access_denied&error_description=no&state=st' | seed "$1" refused
    ;;
  discovery)
    printf '{"issuer":"https://as.example","authorization_endpoint":"https://as.example/a","token_endpoint":"https://as.example/t","revocation_endpoint":"https://as.example/r","userinfo_endpoint":"https://as.example/u","device_authorization_endpoint":"https://as.example/d","registration_endpoint":"https://as.example/c","introspection_endpoint":"https://as.example/i","scopes_supported":["openid","offline_access"],"grant_types_supported":["authorization_code","client_credentials"],"token_endpoint_auth_methods_supported":["client_secret_post","private_key_jwt"],"code_challenge_methods_supported":["S256"]}' | seed "$1" whole
    ;;
  import)
    printf '{"info":{"name":"A","schema":"https://schema.getpostman.com/json/collection/v2.1.0/collection.json"},"auth":{"type":"oauth2","oauth2":[{"key":"grant_type","value":"authorization_code"},{"key":"authUrl","value":"https://as.example/a"},{"key":"accessTokenUrl","value":"https://as.example/t"},{"key":"clientId","value":"{{id}}"},{"key":"clientSecret","value":"s"},{"key":"client_authentication","value":"body"},{"key":"tokenRequestParams","value":[{"key":"x","value":"y","send_as":"request_header","enabled":true}]},{"key":"headerPrefix","value":"Token"}]},"item":[],"variable":[{"key":"id","value":"i"}]}' | seed "$1" postman
    printf 'meta {\n  name: A\n}\n\nauth:oauth2 {\n  grant_type: client_credentials\n  access_token_url: https://as.example/t\n  client_id: i\n  client_secret: s\n  scope: a b\n  credentials_placement: body\n}\n' | seed "$1" bruno
    printf '{"_type":"export","__export_format":4,"resources":[{"_id":"req_1","_type":"request","name":"A","url":"https://api.example/x","authentication":{"type":"oauth2","grantType":"password","accessTokenUrl":"https://as.example/t","clientId":"i","username":"u","password":"p"}}]}' | seed "$1" insomnia-4
    printf 'type: collection.insomnia.rest/5.0\nname: A\ncollection:\n  - url: https://api.example/x\n    name: B\n    authentication:\n      type: oauth2\n      grantType: client_credentials\n      accessTokenUrl: https://as.example/t\n      clientId: i\n      scope: a\n' | seed "$1" insomnia-5
    printf "curl -X POST https://as.example/t -u 'i:s' -H 'X-A: b' --data-urlencode 'scope=a b' -d grant_type=client_credentials -d audience=x" | seed "$1" curl
    ;;
  esac
}

for target in "${targets[@]}"; do
  mkdir -p "corpus/$target" "found/$target"
  seeds "$target"
  echo "== $target: $seconds s"
  log="found/$target/log"
  if ! "target/$host/release/$target" "corpus/$target" -max_total_time="$seconds" -max_len=65536 -timeout=5 -rss_limit_mb=2048 \
    -artifact_prefix="found/$target/" -print_final_stats=1 >"$log" 2>&1; then
    grep -A3 panicked "$log" || tail -20 "$log"
    echo "found/$target holds the input; fuzz/$log the whole story"
    exit 1
  fi
  sed -n 's/^stat::number_of_executed_units: */inputs: /p' "$log"
done
