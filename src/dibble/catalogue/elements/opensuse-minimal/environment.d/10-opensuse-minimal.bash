# shellcheck shell=bash
export DISTRO_NAME=opensuse
export DIB_RELEASE=${DIB_RELEASE:-16.0}
export DIB_INIT_SYSTEM=systemd
export EFI_BOOT_DIR=EFI/opensuse
export DIB_DISTRIBUTION_MIRROR=${DIB_DISTRIBUTION_MIRROR:-https://download.opensuse.org}

if [ -z "${DIB_ZYPPER_REPOS:-}" ]; then
    case ${ARCH:-} in
        amd64) _arch=x86_64 ;;
        arm64) _arch=aarch64 ;;
        ppc64el) _arch=ppc64le ;;
        *) _arch=${ARCH:-} ;;
    esac
    _base=$DIB_DISTRIBUTION_MIRROR
    case $DIB_RELEASE in
        15.*)
            # Other architectures than x86_64 have trees of their own there, but not for updates.
            _port=
            if [ "$_arch" != "x86_64" ]; then
                _port=ports/$_arch/
            fi
            DIB_ZYPPER_REPOS="oss=>$_base/${_port}distribution/leap/$DIB_RELEASE/repo/oss"
            DIB_ZYPPER_REPOS+=" update=>$_base/${_port}update/leap/$DIB_RELEASE/oss"
            ;;
        *) DIB_ZYPPER_REPOS="oss=>$_base/distribution/leap/$DIB_RELEASE/repo/oss/$_arch" ;;
    esac
    unset _arch _base _port
fi
export DIB_ZYPPER_REPOS
