# shellcheck shell=bash
export DISTRO_NAME=openeuler
export DIB_RELEASE=${DIB_RELEASE:-24.03-LTS-SP2}
export EFI_BOOT_DIR=EFI/openEuler
export DIB_DISTRIBUTION_MIRROR=${DIB_DISTRIBUTION_MIRROR:-https://repo.openeuler.org}
