# shellcheck shell=bash
export DISTRO_NAME=arch
export DIB_RELEASE=${DIB_RELEASE:-rolling}
export DIB_INIT_SYSTEM=systemd
export EFI_BOOT_DIR=EFI/arch
export DIB_ARCH_REPOSITORIES=${DIB_ARCH_REPOSITORIES:-core extra}
export DIB_ARCH_SNAPSHOT=${DIB_ARCH_SNAPSHOT:-}

if [ -z "${DIB_DISTRIBUTION_MIRROR:-}" ]; then
    case ${ARCH:-}:$DIB_ARCH_SNAPSHOT in
        arm64:*) DIB_DISTRIBUTION_MIRROR=http://mirror.archlinuxarm.org ;;
        *:) DIB_DISTRIBUTION_MIRROR=https://geo.mirror.pkgbuild.com ;;
        *) DIB_DISTRIBUTION_MIRROR=https://archive.archlinux.org ;;
    esac
fi
export DIB_DISTRIBUTION_MIRROR
