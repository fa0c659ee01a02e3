# shellcheck shell=bash
export DISTRO_NAME=gentoo
export DIB_RELEASE=gentoo
export EFI_BOOT_DIR=EFI/gentoo

case ${ARCH:-amd64} in
    x86_64) _arch=amd64 ;;
    aarch64) _arch=arm64 ;;
    *) _arch=${ARCH:-amd64} ;;
esac
export GENTOO_PROFILE=${GENTOO_PROFILE:-default/linux/$_arch/23.0}
unset _arch
case $GENTOO_PROFILE in
    *systemd*) export DIB_INIT_SYSTEM=systemd ;;
    *) export DIB_INIT_SYSTEM=openrc ;;
esac

export DIB_GENTOO_NETWORK=${DIB_GENTOO_NETWORK:-True}
export GENTOO_PORTAGE_CLEANUP=${GENTOO_PORTAGE_CLEANUP:-True}
export GENTOO_PYTHON_TARGETS=${GENTOO_PYTHON_TARGETS:-}
export GENTOO_OVERLAYS=${GENTOO_OVERLAYS:-}
export GENTOO_EMERGE_DEFAULT_OPTS=${GENTOO_EMERGE_DEFAULT_OPTS:---binpkg-respect-use --rebuilt-binaries=y --buildpkg --usepkg}
