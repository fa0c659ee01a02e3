# shellcheck shell=bash
export DISTRO_NAME=ubuntu
export DIB_RELEASE=${DIB_RELEASE:-noble}
export DIB_DEBIAN_COMPONENTS=${DIB_DEBIAN_COMPONENTS:-main,universe}
export EFI_BOOT_DIR=EFI/ubuntu
export DIB_INIT_SYSTEM=systemd

case "${ARCH:-}" in
    amd64 | x86_64 | i386 | i686) _mirror=http://archive.ubuntu.com/ubuntu ;;
    *) _mirror=http://ports.ubuntu.com/ubuntu-ports ;;
esac
export DIB_DISTRIBUTION_MIRROR=${DIB_DISTRIBUTION_MIRROR:-$_mirror}
unset _mirror
