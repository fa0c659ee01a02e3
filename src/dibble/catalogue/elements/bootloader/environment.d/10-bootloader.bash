# shellcheck shell=bash
case "${ARCH:-}" in
    ppc*)
        export DIB_BOOTLOADER_SERIAL_CONSOLE=${DIB_BOOTLOADER_SERIAL_CONSOLE:-hvc0}
        ;;
    *arm64* | *aarch64*)
        export DIB_BOOTLOADER_SERIAL_CONSOLE=${DIB_BOOTLOADER_SERIAL_CONSOLE:-ttyAMA0}
        # For an image without a block-device element; such an element sets its own value after this.
        export DIB_BLOCK_DEVICE=${DIB_BLOCK_DEVICE:-efi}
        ;;
    riscv64)
        export DIB_BOOTLOADER_SERIAL_CONSOLE=${DIB_BOOTLOADER_SERIAL_CONSOLE:-ttyS0,115200}
        export DIB_BLOCK_DEVICE=${DIB_BLOCK_DEVICE:-efi}
        ;;
    armhf)
        export DIB_BOOTLOADER_SERIAL_CONSOLE=${DIB_BOOTLOADER_SERIAL_CONSOLE:-ttyAMA0}
        ;;
    *)
        export DIB_BOOTLOADER_SERIAL_CONSOLE=${DIB_BOOTLOADER_SERIAL_CONSOLE:-ttyS0,115200}
        ;;
esac

export DIB_BLOCK_DEVICE=${DIB_BLOCK_DEVICE:-mbr}
export DIB_BOOTLOADER_DEFAULT_CMDLINE=${DIB_BOOTLOADER_DEFAULT_CMDLINE:-nofb nomodeset gfxpayload=text}
export DIB_BOOTLOADER_USE_SERIAL_CONSOLE=${DIB_BOOTLOADER_USE_SERIAL_CONSOLE:-True}
# Empty means none.
export DIB_BOOTLOADER_VIRTUAL_TERMINAL=${DIB_BOOTLOADER_VIRTUAL_TERMINAL-tty0}
export DIB_GRUB_TIMEOUT=${DIB_GRUB_TIMEOUT:-5}
export DIB_GRUB_TIMEOUT_STYLE=${DIB_GRUB_TIMEOUT_STYLE:-menu}
export DIB_NO_TIMER_CHECK=${DIB_NO_TIMER_CHECK:-True}

# For package-installs.yaml, which asks for no variable that is not set.
export DIB_BOOTLOADER=${DIB_BOOTLOADER:-grub}
case "$DIB_BOOTLOADER" in
    systemd-boot | extlinux) DIB_SKIP_GRUB_PACKAGE_INSTALL=True ;;
esac

# package-installs.yaml compares with one spelling.
case "${DIB_SKIP_GRUB_PACKAGE_INSTALL:-}" in
    1 | [Tt]rue | TRUE | [Yy]es | YES)
        export DIB_SKIP_GRUB_PACKAGE_INSTALL=True
        ;;
    *)
        export DIB_SKIP_GRUB_PACKAGE_INSTALL=False
        ;;
esac
