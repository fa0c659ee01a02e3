# shellcheck shell=bash
export DISTRO_NAME=centos
export DIB_RELEASE=${DIB_RELEASE:-9-stream}
export DIB_FLAVOR=${DIB_FLAVOR:-GenericCloud}
export YUM=${YUM:-dnf}
export EFI_BOOT_DIR=EFI/centos
