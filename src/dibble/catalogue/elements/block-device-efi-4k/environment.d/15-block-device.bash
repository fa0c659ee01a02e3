# shellcheck shell=bash
case "${ARCH:-}" in
    ppc*)
        echo "block-device-efi-4k: $ARCH machines have no UEFI. Use block-device-gpt or block-device-mbr." >&2
        exit 1
        ;;
esac

export DIB_BLOCK_DEVICE=efi
