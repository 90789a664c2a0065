#!/bin/sh
# Makes deploy/docker/secrets for compose.cluster.yml; what is there stays. Compose mounts the files as they are, and the
# containers run as other users than you: the files can be read by everybody, and the folder they lie in by its owner alone.
set -eu
cd "$(dirname "$0")"
mkdir -p -m 700 secrets
cd secrets
if [ ! -e database_password ]; then
    openssl rand -hex 24 > database_password
    echo "postgresql://postbackd:$(cat database_password)@postgres/postbackd" > store
fi
[ -e secret_key ] || openssl rand -base64 32 > secret_key
chmod 444 database_password store secret_key
