# shellcheck shell=bash
for _name in DIB_LOCAL_IMAGE DISTRO_NAME DIB_RELEASE EFI_BOOT_DIR DIB_INIT_SYSTEM; do
    if [ -z "${!_name:-}" ]; then
        echo "replace-partition: $_name has to be set" >&2
        exit 1
    fi
done
unset _name
export DISTRO_NAME DIB_RELEASE EFI_BOOT_DIR DIB_INIT_SYSTEM

# The system is taken as it is.
export DIB_AVOID_PACKAGES_UPDATE=1
export DIB_SKIP_BASE_PACKAGE_INSTALL=1
export DIB_SKIP_GRUB_PACKAGE_INSTALL=True
