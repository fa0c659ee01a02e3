# shellcheck shell=bash
export DISTRO_NAME=fedora
export DIB_RELEASE=${DIB_RELEASE:-44}
export EFI_BOOT_DIR=EFI/fedora
export DIB_YUM_MINIMAL_MIRROR=https://dl.fedoraproject.org/pub/fedora/linux
