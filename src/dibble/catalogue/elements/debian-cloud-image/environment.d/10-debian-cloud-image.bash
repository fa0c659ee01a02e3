# shellcheck shell=bash
export DISTRO_NAME=debian
export DIB_RELEASE=${DIB_RELEASE:-trixie}
export DIB_FLAVOR=${DIB_FLAVOR:-generic}
export DIB_INIT_SYSTEM=systemd
export EFI_BOOT_DIR=EFI/debian
export DIB_DEBIAN_COMPONENTS=${DIB_DEBIAN_COMPONENTS:-main}

# dibble sets DIBBLE_..., to what the machine that builds uses itself.
_mirror=${DIB_DEBIAN_DISTRIBUTION_MIRROR:-${DIBBLE_DEBIAN_MIRROR:-http://ftp.debian.org/debian}}
export DIB_DISTRIBUTION_MIRROR=${DIB_DISTRIBUTION_MIRROR:-$_mirror}
_mirror=${DIBBLE_DEBIAN_SECURITY_MIRROR:-http://security.debian.org/debian-security}
export DIB_DEBIAN_SECURITY_MIRROR=${DIB_DEBIAN_SECURITY_MIRROR:-$_mirror}
unset _mirror
