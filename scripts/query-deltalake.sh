#!/usr/bin/env bash
# Ask DuckDB about the tables, each by its name: <pipeline>.<database>.<collection>.
#
#   scripts/query-deltalake.sh "SELECT status, count(*) FROM shop.shop.orders GROUP BY status"
#   scripts/query-deltalake.sh --as-of 2026-11-17T09:00:00Z "SELECT count(*) FROM shop.shop.orders"
#   scripts/query-deltalake.sh --output orders.parquet "FROM shop.shop.orders"
#   scripts/query-deltalake.sh --tables
#   scripts/query-deltalake.sh --help
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
[[ -x $root/.venv/bin/python ]] || "$root/scripts/setup-local.sh" venv
exec "$root/.venv/bin/python" "$root/scripts/query_deltalake.py" "$@"
