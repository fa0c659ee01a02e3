# shellcheck shell=bash
# bootloader has a default of its own only where nothing is set.
case " ${DIB_BOOTLOADER_DEFAULT_CMDLINE:-} " in
    *" fips=1 "*) ;;
    *) export DIB_BOOTLOADER_DEFAULT_CMDLINE="${DIB_BOOTLOADER_DEFAULT_CMDLINE:-nofb nomodeset gfxpayload=text} fips=1" ;;
esac
