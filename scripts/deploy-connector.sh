#!/usr/bin/env bash
# Deploys a pipeline on the running local platform: its Debezium connector, then its spec for the delta-writer.
#
#   scripts/deploy-connector.sh config/local/shop.yaml
set -euo pipefail

if [[ $# -ne 1 || "$1" == -* ]]; then
    sed -n '2,4s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 2
fi
spec="$(realpath -- "$1")"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[[ -x .venv/bin/python ]] || scripts/setup-local.sh venv
exec .venv/bin/python scripts/stack.py deploy "$spec"
