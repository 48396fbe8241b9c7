#!/usr/bin/env bash
# Stops the local platform. With --clean it deletes its data as well: asks first, unless FORCE=1 or CI is set; CACHE=1 deletes the
# downloads too, which other checkouts share.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

case "${1:-}" in
    "" | --clean) ;;
    *) sed -n '2,3s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac

if [[ ! -x .venv/bin/python ]]; then
    if [[ ! -d .local ]]; then
        echo "nothing to do: the platform has not been started in this checkout"
        exit 0
    fi
    # Somebody has deleted .venv under a stack that may still run.
    scripts/setup-local.sh venv
fi

if [[ "${1:-}" != --clean ]]; then
    exec .venv/bin/python scripts/stack.py down
fi
options=()
[[ "${CACHE:-0}" == 1 ]] && options+=(--cache)
[[ "${FORCE:-0}" == 1 ]] && options+=(--force)
exec .venv/bin/python scripts/stack.py clean ${options[@]+"${options[@]}"}
