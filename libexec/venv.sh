# shellcheck shell=sh
# Sourced by ./dibble and ./test with $root set to the repository.

# ensure_venv LOCK: set $venv to a virtual environment with the requirements of the file LOCK in the repository.
# Costs no process when everything is there.
ensure_venv() {
    venv=${DIBBLE_VENV:-$root/.venv}
    if venv_is_current "$1"; then
        return
    fi
    if [ -z "${DIBBLE_VENV:-}" ] && [ ! -w "$root" ]; then
        # Somebody else's repository: keep our environment among our own caches, one for each repository.
        venv=${XDG_CACHE_HOME:-$HOME/.cache}/dibble-venv/$(printf '%s' "$root" | cksum | tr -c '0-9\n' -)
        if venv_is_current "$1"; then
            return
        fi
    fi
    find_python
    "$python" -P "$root/libexec/make_venv.py" "$venv" "$root/$1"
}

# The stamp is written when all is installed; make_venv.py gives it the time of the lock at least.
venv_is_current() {
    [ -x "$venv/bin/python" ] && [ -e "$venv/.installed-$1" ] && [ ! "$root/$1" -nt "$venv/.installed-$1" ]
}

# find_python: set $python to a Python that is new enough.
find_python() {
    for python in ${DIBBLE_PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11; do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            return
        fi
    done
    echo "dibble: no Python 3.11 or newer on PATH" >&2
    echo "  hint: as root: apt-get install python3 python3-venv (Debian, Ubuntu), dnf install python3 (Fedora)" >&2
    exit 1
}
