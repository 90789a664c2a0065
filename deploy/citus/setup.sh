#!/bin/sh
# Makes the extension, adds the workers, makes our tables and spreads them:
#   deploy/citus/setup.sh 'postgresql://postgres@127.0.0.1:5433/track' [WORKER...]
set -eu
store=$1
shift
[ $# -gt 0 ] || set -- worker-1 worker-2

psql --no-psqlrc --set ON_ERROR_STOP=1 --command 'CREATE EXTENSION IF NOT EXISTS citus' "$store"
for worker in "$@"; do
    psql --no-psqlrc --set ON_ERROR_STOP=1 --command "SELECT citus_add_node('$worker', 5432)" "$store"
done
postbackd db migrate --store "$store"
postbackd db distribute --store "$store"
