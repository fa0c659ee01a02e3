# shellcheck shell=sh
# Sourced by ./test.

# install_test_packages LIST: install what the tests call on the host, by the names in a file, on Debian and its kin. Who may
# not install is told what is missing; the tests that need it will say so too.
install_test_packages() {
    if ! command -v apt-get >/dev/null; then
        return
    fi
    packages=$(sed -e 's/#.*//' -e 's/ *$//' -e '/^$/d' "$1")
    missing=
    for package in python3-venv $packages; do
        case $(dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null) in
            *' installed') ;;
            *) missing="$missing $package" ;;
        esac
    done
    if [ -z "$missing" ]; then
        return
    fi
    as_root=
    if [ "$(id -u)" -ne 0 ]; then
        if ! sudo -n true 2>/dev/null; then
            echo "test: not installed:$missing" >&2
            echo "  hint: as root: apt-get install$missing" >&2
            return
        fi
        as_root="sudo -n"
    fi
    echo "test: installing$missing …" >&2
    # shellcheck disable=SC2086 # words
    {
        retried $as_root apt-get -qq update
        retried $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq --yes --no-install-recommends install $missing
    } >&2 </dev/null
}

# retried COMMAND…: run it up to four times, with growing pauses: mirrors and networks have bad moments.
retried() {
    for pause in 2 10 30 0; do
        if "$@"; then
            return 0
        fi
        [ "$pause" -eq 0 ] || sleep "$pause"
    done
    echo "gave up: $*" >&2
    return 1
}
