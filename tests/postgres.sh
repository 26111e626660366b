#!/usr/bin/env bash
# Starts a PostgreSQL server, and a pooler before it, in a scratch folder, for one run of the tests. It ends with the process that is named, or with
# the one that called, whatever becomes of it. nextest calls it once a run (.config/nextest.toml); a test without nextest calls it itself.
#
#   tests/postgres.sh [PID]      prints KEY=VALUE lines (into $NEXTEST_ENV, if that is set)
set -euo pipefail

owner=${1:-$PPID}

main() {
  as=()
  find_programs
  folder=$(mktemp -d "${TMPDIR:-/tmp}/keyholder-postgres.XXXXXX")
  trap 'stop; cat "$folder"/*.log >&2 || true; rm -rf "$folder"' ERR
  chmod 755 "$folder"
  mkdir "$folder/run"
  own "$folder" "$folder/run"
  "${as[@]}" "$initdb" --pgdata="$folder/data" --username=postgres --auth=trust --encoding=UTF8 --locale=C --no-sync >"$folder/initdb.log" 2>&1
  certificate
  printf '%s\n' 'local all all trust' 'host all locked 127.0.0.1/32 scram-sha-256' 'host all all 127.0.0.1/32 trust' >"$folder/data/pg_hba.conf"
  start_server
  start_pooler
  watch_owner
  tell
}

find_programs() {
  local folders=(/usr/lib/postgresql/*/bin)
  PATH="$PATH:${folders[-1]}:/usr/sbin"
  initdb=$(command -v initdb || true)
  postgres=$(command -v postgres || true)
  pgbouncer=$(command -v pgbouncer || true)
  if [ -z "$initdb" ] || [ -z "$postgres" ] || [ -z "$pgbouncer" ]; then
    echo "the tests need PostgreSQL and PgBouncer: run \`make prepare\`, or install the packages postgresql and pgbouncer (initdb, postgres and pgbouncer must be in PATH or below /usr/lib/postgresql)" >&2
    exit 1
  fi
  initdb=$(readlink -f "$initdb") postgres=$(readlink -f "$postgres")
  # PostgreSQL refuses to run as root.
  if [ "$(id -u)" = 0 ]; then
    user=$(getent passwd postgres >/dev/null && echo postgres || echo nobody)
    as=(setpriv "--reuid=$user" "--regid=$(id -gn "$user")" --clear-groups --)
  fi
}

own() {
  if ((${#as[@]})); then chown "$user" "$@"; fi
}

# An authority, and a certificate of it for `localhost`.
certificate() {
  local new=(openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30)
  "${new[@]}" -subj '/CN=Keyholder test authority' -keyout "$folder/ca.key" -out "$folder/ca.pem" 2>/dev/null
  "${new[@]}" -subj /CN=localhost -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE \
    -CA "$folder/ca.pem" -CAkey "$folder/ca.key" -keyout "$folder/data/server.key" -out "$folder/data/server.crt" 2>/dev/null ||
    two_steps
  chmod 600 "$folder/data/server.key"
  own "$folder/data/server.key" "$folder/data/server.crt"
}

# As OpenSSL before 3.0 wants it.
two_steps() {
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost -keyout "$folder/data/server.key" -out "$folder/server.csr" 2>/dev/null
  openssl x509 -req -in "$folder/server.csr" -CA "$folder/ca.pem" -CAkey "$folder/ca.key" -CAcreateserial -days 30 \
    -extfile <(echo subjectAltName=DNS:localhost) -out "$folder/data/server.crt" 2>/dev/null
}

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# What a crash of the machine would lose doesn't matter here.
start_server() {
  for _ in 1 2 3; do
    port=$(free_port)
    (cd "$folder" && exec setsid "${as[@]}" "$postgres" -D "$folder/data" -p "$port" -k "$folder/run" -c listen_addresses=127.0.0.1 \
      -c fsync=off -c full_page_writes=off -c max_connections=400 -c shared_buffers=64MB -c ssl=on -c autovacuum=off) \
      >"$folder/postgres.log" 2>&1 </dev/null 9>&- &
    server=$!
    for _ in $(seq 100); do
      if sql 'SELECT 1' >/dev/null 2>&1; then
        sql "CREATE ROLE locked LOGIN PASSWORD 'sesame'" "CREATE ROLE poor LOGIN" 'CREATE DATABASE keyholder'
        return
      fi
      kill -0 "$server" 2>/dev/null || break
      sleep 0.1
    done
    kill -QUIT "$server" 2>/dev/null || true
  done
  false
}

# Two servers for many clients: what would be left behind by one transaction, the next client would meet.
start_pooler() {
  pooler_port=$(free_port)
  cat >"$folder/pgbouncer.ini" <<INI
[databases]
* = host=127.0.0.1 port=$port user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $pooler_port
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 2
max_client_conn = 200
INI
  own "$folder/pgbouncer.ini"
  (exec setsid "${as[@]}" "$pgbouncer" "$folder/pgbouncer.ini") >"$folder/pgbouncer.log" 2>&1 </dev/null 9>&- &
  pooler=$!
}

sql() {
  local one
  for one in "$@"; do
    "${postgres%/*}/psql" -X -q -v ON_ERROR_STOP=1 -h "$folder/run" -p "$port" -U postgres -d postgres -c "$one"
  done
}

stop() {
  kill -QUIT ${server:+"$server"} 2>/dev/null || true
  kill -KILL ${pooler:+"$pooler"} 2>/dev/null || true
}

# Nothing survives the run, even if it is killed.
watch_owner() {
  (
    trap '' INT TERM HUP
    tail --pid="$owner" -f /dev/null
    stop
    tail --pid="$server" -f /dev/null
    rm -rf "$folder"
  ) >/dev/null 2>&1 </dev/null 9>&- &
  disown -a
}

tell() {
  if [ -n "${NEXTEST_ENV:-}" ]; then exec >>"$NEXTEST_ENV"; fi
  cat <<VARIABLES
KEYHOLDER_TEST_POSTGRES=postgres://postgres@127.0.0.1:$port/keyholder
KEYHOLDER_TEST_POOLER=postgres://postgres@127.0.0.1:$pooler_port/keyholder
KEYHOLDER_TEST_POSTGRES_CA=$folder/ca.pem
VARIABLES
}

main
