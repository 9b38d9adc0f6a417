#!/bin/sh
# Runs matrixbench against this server (the monolith) and Synapse, side by side, in one run: on SQLite, or with DATABASE=postgres each on
# a Postgres of its own, whose processes count too. Synapse comes from PyPI, into .cache/synapse. Arguments go to matrixbench:
#
#     scripts/bench-synapse.sh -quick
#     DATABASE=postgres scripts/bench-synapse.sh -rounds 2 -duration 2s
set -eu
cd "$(dirname "$0")/.."

# A Postgres is started by scripts/testparts, which runs this script in it: once for each server.
if [ "${DATABASE:-}" = postgres ] && [ -z "${PEER_POSTGRES:-}" ]; then
    if [ -z "${OUR_POSTGRES:-}" ]; then
        exec env -u DENDRITE_TEST_POSTGRES go run ./scripts/testparts sh -c 'OUR_POSTGRES="$DENDRITE_TEST_POSTGRES" exec sh scripts/bench-synapse.sh "$@"' sh "$@"
    fi
    exec env -u DENDRITE_TEST_POSTGRES go run ./scripts/testparts sh -c 'PEER_POSTGRES="$DENDRITE_TEST_POSTGRES" exec sh scripts/bench-synapse.sh "$@"' sh "$@"
fi
cache="$PWD/.cache"
work=$(mktemp -d)
ours= peer=
finish() {
    [ -z "$ours" ] || kill "$ours" 2>/dev/null || true
    [ -z "$peer" ] || kill "$peer" 2>/dev/null || true
    wait
    rm -rf "$work"
}
trap finish EXIT INT TERM

if [ ! -x "$cache/synapse/bin/python" ]; then
    echo "getting Synapse from PyPI into $cache/synapse"
    python3 -m venv "$cache/synapse"
    "$cache/synapse/bin/pip" -q install 'matrix-synapse[postgres]==1.163.*'
fi
CGO_ENABLED=0 go build -o "$work/dendrite" ./cmd/dendrite
(cd bench && go build -o "$work/matrixbench" .)

synapse_database="{name: sqlite3, args: {database: $work/synapse.db}}"
our_database= our_processes= peer_processes=
if [ "${DATABASE:-}" = postgres ]; then
    postmaster() { head -n 1 "$(psql "$1" -Atc 'SHOW data_directory')/postmaster.pid"; }
    psql "$OUR_POSTGRES" -qc 'CREATE DATABASE ours'
    psql "$PEER_POSTGRES" -qc "CREATE DATABASE peer TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'"
    our_database="--database $(echo "$OUR_POSTGRES" | sed 's|/postgres?|/ours?|')"
    our_processes=",$(postmaster "$OUR_POSTGRES")" peer_processes=",$(postmaster "$PEER_POSTGRES")"
    synapse_database="{name: psycopg2, args: {dsn: '$(echo "$PEER_POSTGRES" | sed 's|/postgres?|/peer?|')', cp_min: 5, cp_max: 10}}"
fi
# shellcheck disable=SC2086 # two words or none
"$work/dendrite" generate-config --server-name ours.test --dir "$work/ours" $our_database >/dev/null
sed -i -e '/^  registration:/,/enabled:/s/enabled: false/enabled: true/' -e 's/verification: token/verification: none/' \
    -e 's/password_hash_cost: 10/password_hash_cost: 4/' -e '/^  rate_limits:/,/disabled:/s/disabled: false/disabled: true/' "$work/ours/dendrite-config.yaml"
"$work/dendrite" --config "$work/ours/dendrite-config.yaml" --listen 127.0.0.1:8308 >"$work/ours.log" 2>&1 &
ours=$!

(cd "$work" && "$cache/synapse/bin/python" -m synapse.app.homeserver --server-name peer.test --config-path "$work/synapse.yaml" \
    --generate-config --report-stats=no >/dev/null 2>&1)
cat >"$work/bench.yaml" <<YAML
server_name: peer.test
pid_file: $work/synapse.pid
listeners: [{port: 8309, bind_addresses: [127.0.0.1], type: http, tls: false, resources: [{names: [client]}]}]
database: $synapse_database
media_store_path: $work/synapse-media
signing_key_path: $work/peer.test.signing.key
registration_shared_secret: benchmark
bcrypt_rounds: 4
enable_registration: true
enable_registration_without_verification: true
trusted_key_servers: []
report_stats: false
suppress_key_server_warning: true
rc_message: &free {per_second: 1000000, burst_count: 1000000}
rc_registration: *free
rc_login: {address: *free, account: *free, failed_attempts: *free}
rc_joins: {local: *free, remote: *free}
rc_joins_per_room: *free
rc_invites: {per_room: *free, per_user: *free, per_issuer: *free}
rc_room_creation: *free
rc_presence: {per_user: *free}
presence: {enabled: false}
YAML
"$cache/synapse/bin/python" -m synapse.app.homeserver --config-path "$work/bench.yaml" >"$work/synapse.log" 2>&1 &
peer=$!

for url in http://127.0.0.1:8308 http://127.0.0.1:8309; do
    for _ in $(seq 100); do
        curl -fs "$url/_matrix/client/versions" >/dev/null && break
        sleep 0.2
    done
done
"$work/matrixbench" -server ours=http://127.0.0.1:8308 -server synapse=http://127.0.0.1:8309 -pids "ours=$ours$our_processes" \
    -pids "synapse=$peer$peer_processes" "$@"
