# shellcheck shell=bash
# A value that somebody has chosen stays; 10-... of the distribution has put its default there, which does not.
_given=$(printf '%s\n' "${DIB_ENV:-}" | sed -n -E 's/^declare -[A-Za-z-]+ (DIB_[A-Z_]*MIRROR[A-Z_]*)=.*/\1/p')
_mirror=
_security=
case ${DISTRO_NAME:-} in
    debian)
        _mirror=${NODEPOOL_DEBIAN_MIRROR:-}
        _security=${NODEPOOL_DEBIAN_SECURITY_MIRROR:-}
        ;;
    ubuntu)
        case ${ARCH:-} in
            amd64 | x86_64 | i386) _mirror=${NODEPOOL_UBUNTU_MIRROR:-} ;;
            *) _mirror=${NODEPOOL_UBUNTU_PORTS_MIRROR:-} ;;
        esac
        ;;
    centos) _mirror=${NODEPOOL_CENTOS_MIRROR:-} ;;
    fedora) _mirror=${NODEPOOL_FEDORA_MIRROR:-} ;;
    opensuse) _mirror=${NODEPOOL_OPENSUSE_MIRROR:-} ;;
esac
if [ -n "$_mirror" ] && [[ $_given != *DIB_DISTRIBUTION_MIRROR* ]]; then
    export DIB_DISTRIBUTION_MIRROR=$_mirror
fi
if [ -n "$_security" ] && [[ $_given != *DIB_DEBIAN_SECURITY_MIRROR* ]]; then
    export DIB_DEBIAN_SECURITY_MIRROR=$_security
fi
if [ -n "${NODEPOOL_PYPI_MIRROR:-}" ] && [ -z "${DIB_PYPI_MIRROR_URL:-}" ]; then
    export DIB_PYPI_MIRROR_URL=$NODEPOOL_PYPI_MIRROR
fi
if [ -n "${DIB_OS_CI_YUM_REPOS:-}" ]; then
    export DIB_YUM_MINIMAL_BOOTSTRAP_REPOS=$DIB_OS_CI_YUM_REPOS
fi
unset _given _mirror _security
