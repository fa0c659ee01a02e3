# shellcheck shell=bash
case "${DISTRO_NAME:-}" in
    almalinux | centos | fedora | rocky) export EFI_BOOT_DIR=EFI/$DISTRO_NAME ;;
    rhel) export EFI_BOOT_DIR=EFI/redhat ;;
    *)
        echo "replace-partition-redhat: DISTRO_NAME has to be almalinux, centos, fedora, rhel or rocky" >&2
        exit 1
        ;;
esac
export DIB_RELEASE=${DIB_RELEASE:-9}
export DIB_INIT_SYSTEM=systemd
