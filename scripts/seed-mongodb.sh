#!/usr/bin/env bash
# Loads the sample shop (customers, orders) into MongoDB: the one of the running local platform, or MONGODB_URI when it is set.
# Takes the seeder's options, for example: scripts/seed-mongodb.sh --customers 1000 --orders 20000
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
[[ -x .venv/bin/python ]] || scripts/setup-local.sh venv

if [[ -z "${MONGODB_URI:-}" && "${1:-}" != --help ]]; then
    if [[ ! -r .local/endpoints.env ]]; then
        echo "the platform has not been started in this checkout: run \`make up\`, or set MONGODB_URI" >&2
        exit 1
    fi
    set -a
    # shellcheck disable=SC1091
    source .local/endpoints.env
    set +a
fi
exec .venv/bin/python tests/load/data_generators/mongodb_seeder.py "$@"
