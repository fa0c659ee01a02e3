# shellcheck shell=bash
export DISTRO_NAME=rhel
export DIB_RELEASE=${DIB_RELEASE:-9}
export YUM=${YUM:-dnf}
export EFI_BOOT_DIR=EFI/redhat
