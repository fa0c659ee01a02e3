# shellcheck shell=bash
export DISTRO_NAME=centos
export DIB_RELEASE=${DIB_RELEASE:-9-stream}
export YUM=${YUM:-dnf}
export EFI_BOOT_DIR=EFI/centos
export DIB_YUM_MINIMAL_CREATE_INTERFACES=${DIB_YUM_MINIMAL_CREATE_INTERFACES:-0}
export DIB_YUM_MINIMAL_MIRROR=https://mirror.stream.centos.org
