#!/usr/bin/env bash
# Bootstrap of the local platform: finds a Python, makes .venv from requirements.lock, then hands over to scripts/stack.py, which
# sees to Java, Maven, Kafka and Debezium. Nothing outside the checkout is written, except by apt-get when run as root.
#
#   scripts/setup-local.sh up      what `make up` does
#   scripts/setup-local.sh build   installs and downloads everything, starts nothing
#   scripts/setup-local.sh venv    the Python environment only
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
cd "$root"
readonly root
readonly packages=(shared delta-writer api reconciliation)
readonly stamp=.venv/.installed
readonly log=.local/logs/setup.log

say() { printf '%s\n' "$*"; }
die() { printf '\033[1;31m✗\033[0m %s\n' "$*" >&2; exit 1; }

is_supported() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }
has_venv() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }
can_install() { [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null; }

# Prints the first Python that is 3.11 to 3.13; one that can make virtual environments is preferred.
find_python() {
    local candidate found=""
    for candidate in python3 python3.13 python3.12 python3.11; do
        command -v "$candidate" >/dev/null && is_supported "$candidate" || continue
        if has_venv "$candidate"; then
            command -v "$candidate"
            return
        fi
        found="${found:-$(command -v "$candidate")}"
    done
    printf '%s' "$found"
}

apt_install() {
    say "  installing $* with apt-get"
    { apt-get -o DPkg::Lock::Timeout=120 update || true
      DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "$@"; } \
        >>"$log" 2>&1 || die "apt-get could not install $*; see $root/$log"
}

require_python() {
    python="$(find_python)"
    if [[ -z $python ]]; then
        local have="no python3 is installed"
        if command -v python3 >/dev/null; then have="python3 is $(python3 --version 2>&1 || true)"; fi
        die "Python 3.11, 3.12 or 3.13 is needed; $have.
  On Debian 12 or Ubuntu 24.04 and newer:  sudo apt-get install -y python3 python3-venv
  then run \`make up\` again"
    fi
    has_venv "$python" && return
    local package
    package="$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
    can_install && apt_install "$package"
    has_venv "$python" || die "$python cannot make virtual environments: its venv module is missing.
  On Debian or Ubuntu:  sudo apt-get install -y $package
  then run \`make up\` again"
}

# What .venv is made from. Its own path is in it because the scripts of a virtual environment hold theirs.
wanted_stamp() {
    { printf '%s\n' "$root"; cat requirements.lock; for package in "${packages[@]}"; do cat "$package/pyproject.toml"; done; } \
        | sha256sum | cut -d' ' -f1
}

# Shows how far pip is on one line of the terminal; keeps everything in the log.
show_progress() {
    local line count=0
    while IFS= read -r line; do
        printf '%s\n' "$line" >>"$log"
        [[ $line == Collecting* ]] && count=$((count + 1))
        if [[ -t 1 ]]; then
            case $line in
                Collecting*) printf '\r\033[K  Python packages: %d of %d, %s' "$count" "$1" "${line#Collecting }" ;;
                Installing*) printf '\r\033[K  Python packages: installing %d' "$1" ;;
            esac
        fi
    done
    if [[ -t 1 ]]; then printf '\r\033[K'; fi
}

pip_install() {
    local total
    total="$(grep -c '^[A-Za-z0-9]' requirements.lock)"
    .venv/bin/python -m pip install --disable-pip-version-check --no-input --progress-bar off "$@" 2>&1 | show_progress "$total" \
        || die "pip could not install the Python packages; the last lines of $root/$log:
$(tail -n 12 "$log")"
}

ensure_venv() {
    local stamped=""
    [[ -r $stamp ]] && stamped="$(<"$stamp")"
    if [[ $stamped == "$(wanted_stamp)" ]] && .venv/bin/python -c '' 2>/dev/null; then
        return
    fi
    require_python
    if ! .venv/bin/python -m pip --version >/dev/null 2>&1 || ! is_supported .venv/bin/python \
        || ! grep -qF "$root/.venv" .venv/bin/activate; then
        say "  Python environment: .venv with $("$python" --version)"
        rm -rf .venv
        "$python" -m venv .venv >>"$log" 2>&1 || die "$python could not make .venv; see $root/$log"
    fi
    rm -f "$stamp"
    say "  Python packages: from requirements.lock, a minute or two the first time"
    pip_install --require-hashes -r requirements.lock
    local editable=()
    for package in "${packages[@]}"; do editable+=(--editable "./$package"); done
    pip_install --no-deps --no-build-isolation "${editable[@]}"
    wanted_stamp >"$stamp"
}

main() {
    [[ $# -gt 0 ]] || set -- up
    local command="$1"
    case $command in
        up | build | venv) ;;
        *) sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2 ;;
    esac
    mkdir -p .local/logs
    exec 9>.local/setup.lock
    if ! flock --nonblock 9; then
        say "another \`make\` is setting up this checkout: waiting for it to end"
        flock 9
    fi
    ensure_venv
    exec 9>&-
    [[ $command == venv ]] || exec .venv/bin/python scripts/stack.py "$@"
}

main "$@"
