# shellcheck shell=bash
export DISTRO_NAME=debian
export DIB_RELEASE=${DIB_RELEASE:-stable}
export DIB_INIT_SYSTEM=systemd
export EFI_BOOT_DIR=EFI/debian

# dibble sets DIBBLE_..., to what the machine that builds uses itself.
_mirror=${DIB_DEBIAN_DISTRIBUTION_MIRROR:-${DIBBLE_DEBIAN_MIRROR:-http://ftp.debian.org/debian}}
export DIB_DISTRIBUTION_MIRROR=${DIB_DISTRIBUTION_MIRROR:-$_mirror}
_mirror=${DIBBLE_DEBIAN_SECURITY_MIRROR:-http://security.debian.org/debian-security}
export DIB_DEBIAN_SECURITY_MIRROR=${DIB_DEBIAN_SECURITY_MIRROR:-$_mirror}
export DIB_DEBIAN_SECURITY_SUBPATH=${DIB_DEBIAN_SECURITY_SUBPATH:--security}
export DIB_DEBIAN_COMPONENTS=${DIB_DEBIAN_COMPONENTS:-main}

if [ -z "${DIB_APT_SOURCES_CONF:-}" ]; then
    _signed="[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] "
    if [ -n "${DIB_APT_KEYRING:-${DIB_DEBIAN_KEYRING:-}}" ]; then
        _signed=
    fi
    _components=${DIB_DEBIAN_COMPONENTS//,/ }
    DIB_DEBOOTSTRAP_SOURCES=${DIB_DEBOOTSTRAP_SOURCES:-}
    DIB_APT_SOURCES_CONF="default:deb $_signed$DIB_DISTRIBUTION_MIRROR $DIB_RELEASE $_components"
    case $DIB_RELEASE in
        sid | unstable | experimental | rc-buggy) ;;
        *)
            _suite=$DIB_RELEASE$DIB_DEBIAN_SECURITY_SUBPATH
            DIB_APT_SOURCES_CONF+="
updates:deb $_signed$DIB_DISTRIBUTION_MIRROR $DIB_RELEASE-updates $_components
security:deb $_signed$DIB_DEBIAN_SECURITY_MIRROR $_suite $_components"
            # The newest packages from the start, instead of a second installation of some by the upgrade.
            if [ "${DIB_AVOID_PACKAGES_UPDATE:-0}" = "0" ] && [ -z "$DIB_DEBOOTSTRAP_SOURCES" ]; then
                DIB_DEBOOTSTRAP_SOURCES="deb $DIB_DEBIAN_SECURITY_MIRROR $_suite $_components
deb $DIB_DISTRIBUTION_MIRROR $DIB_RELEASE-updates $_components"
            fi
            ;;
    esac
    export DIB_DEBOOTSTRAP_SOURCES
    unset _signed _components _suite
fi
export DIB_APT_SOURCES_CONF
unset _mirror
