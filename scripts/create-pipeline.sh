#!/usr/bin/env bash
# From a spec in a file (YAML or JSON) to a pipeline that runs, through the API: checks it, creates the pipeline or changes it to
# the spec, starts it and waits until it runs.
#
#   scripts/create-pipeline.sh config/local/shop.yaml
#   scripts/create-pipeline.sh --check-only my-pipeline.yaml
#   scripts/create-pipeline.sh --help
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
if [[ $# -eq 0 ]]; then
    sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 2
fi
[[ -x $root/.venv/bin/python ]] || "$root/scripts/setup-local.sh" venv
exec "$root/.venv/bin/python" "$root/scripts/create_pipeline.py" "$@"
