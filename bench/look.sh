#!/bin/sh
# One look at a pair, as one would write it in shell: both containers, both servers, the app, the record. It decides and does nothing.
# Usage: look.sh PREFIX APP_PORT PASSWORD_FILE
set -u
prefix=$1 port=$2
PGPASSWORD=$(cat "$3")
export PGPASSWORD PGCONNECT_TIMEOUT=2
primary=$(sed -n 's/.*"primary": *"\([^"]*\)".*/\1/p' "/var/lib/$prefix/cluster.json")
for node in pg-a pg-b; do
    state=$(docker inspect --format '{{.State.Status}} {{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$prefix-$node") || continue
    address=${state#* }
    [ "${state%% *}" = running ] || continue
    role=$(psql -XAtq -h "$address" -U understudy_failover -d postgres -c "SELECT pg_is_in_recovery(), pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()")
    streams=$(psql -XAtq -h "$address" -U understudy_failover -d postgres -c "SELECT application_name, state, sync_state, flush_lsn FROM pg_stat_replication")
    echo "$node recorded=$primary state=${state%% *} role=$role streams=$streams"
done
echo "app $(curl --silent --max-time 2 --output /dev/null --write-out '%{http_code}' "http://127.0.0.1:$port/ready")"
