# shellcheck shell=bash
case "${ARCH:-}" in
    *arm64* | *aarch64* | riscv64)
        echo "block-device-mbr: $ARCH machines boot with UEFI only. Use the element block-device-efi." >&2
        exit 1
        ;;
esac

export DIB_BLOCK_DEVICE=mbr
