# shellcheck shell=bash
export DIB_VERITY_STATE=${DIB_VERITY_STATE:-memory}
case $DIB_VERITY_STATE in
    memory)
        # systemd's word, which bootloader puts on the kernel's command line.
        DIB_BOOTLOADER_DEFAULT_CMDLINE="${DIB_BOOTLOADER_DEFAULT_CMDLINE:-} systemd.volatile=overlay"
        export DIB_BOOTLOADER_DEFAULT_CMDLINE
        ;;
    none) ;;
    *)
        echo "verity: DIB_VERITY_STATE is \"$DIB_VERITY_STATE\"; it can be memory or none" >&2
        exit 1
        ;;
esac
