#!/bin/bash
# Makes the database on the first start, then runs the server in the foreground. Bash reads as-postgres.sh first.
set -euo pipefail

say() { echo "postgis: $*" >&2; }

fail() {
  say "$*"
  exit 1
}

if [ "${1:-postgres}" != postgres ]; then
  exec "$@"
fi
shift || true

make_database() {
  initdb -D "$making" -U "$user" -A scram-sha-256 --auth-local=trust -E UTF8 --locale=C.UTF-8 \
    --pwfile=<(printf '%s\n' "$password") >/dev/null
  echo "host all all all scram-sha-256" >> "$making/pg_hba.conf"
  socket=$(mktemp -d /tmp/init.XXXXXX)
  pg_ctl -D "$making" -w -t 120 -o "-c listen_addresses= -c unix_socket_directories=$socket" start >/dev/null
  run() { psql -v ON_ERROR_STOP=1 --no-psqlrc -q -h "$socket" -U "$user" "$@"; }
  if [ "$database" != postgres ]; then
    run -d postgres -v name="$database" <<<'CREATE DATABASE :"name"'
  fi
  run -d "$database" -c "CREATE EXTENSION IF NOT EXISTS postgis"
  for file in /docker-entrypoint-initdb.d/*; do
    case "$file" in
      *.sh) say "running $file"; PGHOST=$socket PGUSER=$user PGDATABASE=$database bash "$file" ;;
      *.sql) say "running $file"; run -d "$database" -f "$file" ;;
    esac
  done
  pg_ctl -D "$making" -m fast -w stop >/dev/null
  rm -rf "$socket"
}

user=${POSTGRES_USER:-postgres}
database=${POSTGRES_DB:-$user}
[ "$(id -u)" != 0 ] || fail "PostgreSQL does not run as root. Set runAsUser to any other user."

if [ ! -s "$PGDATA/PG_VERSION" ]; then
  password=${POSTGRES_PASSWORD:-}
  if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then
    [ -r "$POSTGRES_PASSWORD_FILE" ] || fail "The file $POSTGRES_PASSWORD_FILE cannot be read."
    password=$(<"$POSTGRES_PASSWORD_FILE")
  fi
  [ -n "$password" ] || fail "There is no database yet, and no POSTGRES_PASSWORD to make one with."
  volume=$(dirname "$PGDATA")
  making=$PGDATA
  if [ -w "$volume" ]; then
    # A start that was cut leaves a half-made folder: the database appears whole, by a rename, or not at all.
    making=$volume/.making
    rm -rf "$making"
  elif [ ! -w "$PGDATA" ]; then
    fail "The folder $PGDATA cannot be written. Does the volume belong to uid $(id -u) or gid $(id -g)?"
  fi
  say "making the database $database"
  # Made with the image for the names that stacks use: initdb and PostGIS take seconds, a copy does not.
  ready=/opt/database/$user/$database
  if [ -d "$ready" ] && [ -z "$(ls /docker-entrypoint-initdb.d)" ]; then
    mkdir -p "$making"
    cp -r "$ready/." "$making"
    chmod -R go= "$making"
    printf "ALTER ROLE \"%s\" PASSWORD '%s';\n" "$user" "${password//\'/\'\'}" |
      postgres --single -D "$making" "$database" >/dev/null
  else
    make_database
  fi
  if [ "$making" != "$PGDATA" ]; then
    [ ! -d "$PGDATA" ] || rmdir "$PGDATA" || fail "The folder $PGDATA is not empty and holds no database."
    mv "$making" "$PGDATA"
  fi
fi
# How the image makes the database that it holds.
[ -z "${MAKE_ONLY:-}" ] || exit 0

sockets=/var/run/postgresql
[ -w "$sockets" ] || sockets=/tmp
exec postgres -D "$PGDATA" -c listen_addresses='*' -c unix_socket_directories="$sockets" "$@"
