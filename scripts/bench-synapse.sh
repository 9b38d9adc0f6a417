#!/bin/sh
# Runs matrixbench against this server (monolith on SQLite) and Synapse (SQLite), side by side, in one run. Synapse comes from PyPI,
# into .cache/synapse. Arguments go to matrixbench: scripts/bench-synapse.sh -quick
set -eu
cd "$(dirname "$0")/.."
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
    "$cache/synapse/bin/pip" -q install 'matrix-synapse==1.163.*'
fi
CGO_ENABLED=0 go build -o "$work/dendrite" ./cmd/dendrite
(cd bench && go build -o "$work/matrixbench" .)

"$work/dendrite" generate-config --server-name ours.test --dir "$work/ours" >/dev/null
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
database: {name: sqlite3, args: {database: $work/synapse.db}}
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
"$work/matrixbench" -server ours=http://127.0.0.1:8308 -server synapse=http://127.0.0.1:8309 -pids "ours=$ours" -pids "synapse=$peer" "$@"
