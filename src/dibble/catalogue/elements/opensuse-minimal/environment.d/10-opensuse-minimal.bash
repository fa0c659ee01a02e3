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

# The keys that sign the repositories and packages of Leap: openSUSE's own, those of SUSE Linux Enterprise 15 (two) and
# 16, and those of what openSUSE builds for these (Backports, of 2017, of 2023, and for 16).
if [ -z "${DIB_ZYPPER_FINGERPRINTS:-}" ]; then
    DIB_ZYPPER_FINGERPRINTS="
        AD485664E901B867051AB15F35A2F86E29B700A4
        FEAB502539D846DB2C0961CA70AF9E8139DB7C82
        7F009157B127B994D5CFBE76F74F09BC3FA1D6CE
        1C59D66FCD52563A16933DBCFEC28EAF09D9EA69
        637B32FF3D83F07A7AE1C40A9C214D4065176565
        F044C2C507A1262B538AAADD8A49EB0325DB7AE0
        BF3F9A67D3A2FF98A73F5E07488C583D287A0027"
fi
export DIB_ZYPPER_FINGERPRINTS
