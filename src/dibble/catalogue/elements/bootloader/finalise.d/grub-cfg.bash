#!/bin/bash
#
# Prints a grub.cfg for the kernels of a root tree.
#
#   grub-cfg.bash ROOT ROOT_LABEL [ROOT_FILE_SYSTEM [BOOT_LABEL]]
#
# ROOT is a directory; BOOT_LABEL is given where /boot is a file system of its own. The settings are those of
# /etc/default/grub, as for grub-mkconfig. That program is no use here: it asks which block device holds the root, and
# while an image is built there is none. The text depends on nothing but the arguments and the files of ROOT.

if [ "${DIB_DEBUG_TRACE:-0}" -gt 0 ]; then
    set -x
fi
set -eu
set -o pipefail

if [ $# -lt 2 ]; then
    echo "usage: ${0##*/} ROOT ROOT_LABEL [ROOT_FILE_SYSTEM [BOOT_LABEL]]" >&2
    exit 1
fi
ROOT=${1%/}
ROOT_LABEL=$2
ROOT_FILE_SYSTEM=${3:-}
BOOT_LABEL=${4:-}

# Seen from GRUB, which knows the file systems but not how they are mounted.
BOOT=/boot
SEARCH_LABEL=$ROOT_LABEL
if [ -n "$BOOT_LABEL" ]; then
    BOOT=
    SEARCH_LABEL=$BOOT_LABEL
fi

# Prints the btrfs subvolume that is mounted at a directory, or nothing.
subvolume_at() {
    local device point kind options rest
    if [ -f "$ROOT/etc/fstab" ]; then
        while read -r device point kind options rest; do
            if [[ $device != \#* && $point = "$1" && $kind = btrfs && ,$options, =~ ,subvol=/?([^,]+), ]]; then
                printf '%s' "${BASH_REMATCH[1]}"
            fi
        done < "$ROOT/etc/fstab"
    fi
}

# GRUB's paths on btrfs begin above all subvolumes.
ROOT_SUBVOLUME=$(subvolume_at /)
BOOT_SUBVOLUME=$(subvolume_at /boot)
if [ -n "$BOOT_SUBVOLUME" ]; then
    BOOT=/$BOOT_SUBVOLUME
elif [ -z "$BOOT_LABEL" ] && [ -n "$ROOT_SUBVOLUME" ]; then
    BOOT=/$ROOT_SUBVOLUME/boot
fi

GRUB_CMDLINE_LINUX=
GRUB_CMDLINE_LINUX_DEFAULT=
GRUB_DEFAULT=0
GRUB_DEVICE=
GRUB_DISABLE_RECOVERY=
GRUB_SERIAL_COMMAND=
GRUB_TERMINAL=
GRUB_TIMEOUT=5
GRUB_TIMEOUT_STYLE=menu
# The files are written for a plain sh without these options.
set +eu
for settings in "$ROOT"/etc/default/grub "$ROOT"/etc/default/grub.d/*.cfg; do
    if [ -f "$settings" ]; then
        # shellcheck source=/dev/null
        . "$settings" > /dev/null
    fi
done
set -eu
if [ "$GRUB_DEFAULT" = "saved" ]; then
    GRUB_DEFAULT=0
fi
ROOT_DEVICE=${GRUB_DEVICE:-LABEL=$ROOT_LABEL}
if [ -n "$ROOT_SUBVOLUME" ]; then
    GRUB_CMDLINE_LINUX="rootflags=subvol=$ROOT_SUBVOLUME $GRUB_CMDLINE_LINUX"
fi

# Puts a text between single quotes, as GRUB reads them.
quoted() {
    printf "'%s'" "${1//\'/\'\\\'\'}"
}

name_of_system() {
    local line
    if [ -f "$ROOT/etc/os-release" ]; then
        while IFS= read -r line; do
            if [[ $line =~ ^NAME=[\"\']?([^\"\']*) ]]; then
                printf '%s' "${BASH_REMATCH[1]}"
                return 0
            fi
        done < "$ROOT/etc/os-release"
    fi
    printf 'Linux'
}

# Prints the names of the kernels, newest first; those that only rescue a system come last.
kernels() {
    local path name version
    for path in "$ROOT"/boot/vmlinuz-* "$ROOT"/boot/vmlinux-* "$ROOT"/boot/kernel-* \
        "$ROOT"/boot/Image-*; do
        name=${path##*/}
        version=${name#*-}
        case "$name" in
            *.old | *.dpkg-* | *.rpmsave | *.rpmnew | *.sig | *.hmac) continue ;;
        esac
        if [ ! -f "$path" ]; then
            continue
        fi
        case "$name" in
            *rescue*) printf '0 %s %s\n' "$version" "$name" ;;
            *) printf '1 %s %s\n' "$version" "$name" ;;
        esac
    done | LC_ALL=C sort -k 1,1nr -k 2,2Vr -k 3,3 | cut -d ' ' -f 3
}

# Prints the name of a kernel's initramfs, or nothing.
initrd_of() {
    local version=${1#*-} name
    for name in "initrd.img-$version" "initrd-$version.img" "initramfs-$version.img" "initrd-$version" \
        "initrd-$version.gz" "initramfs-genkernel-$version"; do
        if [ -f "$ROOT/boot/$name" ]; then
            printf '%s' "$name"
            return 0
        fi
    done
}

# entry INDENT TITLE KERNEL ARGUMENTS
entry() {
    local indent=$1 initrd
    initrd=$(initrd_of "$3")
    printf '%smenuentry %s --class gnu-linux --class os {\n' "$indent" "$(quoted "$2")"
    printf '%s    echo %s\n' "$indent" "$(quoted "Loading $3 ...")"
    # shellcheck disable=SC2086 # one space between words
    printf '%s    linux %s/%s %s\n' "$indent" "$BOOT" "$3" "$(set -f; echo root=$ROOT_DEVICE ro $4)"
    if [ -n "$initrd" ]; then
        printf '%s    initrd %s/%s\n' "$indent" "$BOOT" "$initrd"
    fi
    printf '%s}\n' "$indent"
}

mapfile -t KERNELS <<< "$(kernels)"
if [ -z "${KERNELS[0]}" ]; then
    echo "bootloader: there is no kernel in /boot. Add the distribution's kernel package." >&2
    exit 1
fi
for kernel in "${KERNELS[@]}"; do
    if [ -z "$(initrd_of "$kernel")" ]; then
        echo "bootloader: $kernel has no initramfs, and a kernel finds no root by its label without one" >&2
    fi
done
SYSTEM=$(name_of_system)

cat << END
# Made when the image was built. update-grub (grub2-mkconfig) makes another one from /etc/default/grub.

set default=$(quoted "$GRUB_DEFAULT")
set timeout_style=$GRUB_TIMEOUT_STYLE
set timeout=$GRUB_TIMEOUT

insmod part_gpt
insmod part_msdos
END
case "$ROOT_FILE_SYSTEM" in
    ext*) echo "insmod ext2" ;;
    xfs | btrfs | f2fs) echo "insmod $ROOT_FILE_SYSTEM" ;;
esac

# The label is the second choice: another disk of the machine may be a copy of the same image.
cat << END

# The kernels are where this file was read from, unless something else than this disk's loader read it.
if [ ! -f $BOOT/${KERNELS[0]} ]; then
    search --no-floppy --label --set=root $(quoted "$SEARCH_LABEL")
fi
END

case " $GRUB_TERMINAL " in
    *" serial "*)
        cat << END

# A machine without the port keeps its screen.
insmod serial
insmod terminal
if ${GRUB_SERIAL_COMMAND:-serial}; then
    terminal_input console serial
    terminal_output console serial
fi
END
        ;;
    *" console "*)
        printf '\ninsmod terminal\nterminal_input console\nterminal_output console\n'
        ;;
esac

INDENT=
# Boot entries as files, where kernels come and go without anyone writing this file anew.
ENTRIES=$(find "$ROOT/boot/loader/entries" -name '*.conf' 2> /dev/null | head -n 1 || true)
if [ -n "$ENTRIES" ]; then
    INDENT="    "
    printf '\nif insmod blscfg; then\n    blscfg\nelse\n'
else
    echo
fi

entry "$INDENT" "$SYSTEM" "${KERNELS[0]}" "$GRUB_CMDLINE_LINUX $GRUB_CMDLINE_LINUX_DEFAULT"
printf '%ssubmenu %s {\n' "$INDENT" "$(quoted "Advanced options for $SYSTEM")"
for kernel in "${KERNELS[@]}"; do
    entry "$INDENT    " "$SYSTEM, with Linux ${kernel#*-}" "$kernel" "$GRUB_CMDLINE_LINUX $GRUB_CMDLINE_LINUX_DEFAULT"
    if [ "$GRUB_DISABLE_RECOVERY" != "true" ]; then
        entry "$INDENT    " "$SYSTEM, with Linux ${kernel#*-} (recovery mode)" "$kernel" "single $GRUB_CMDLINE_LINUX"
    fi
done
printf '%s}\n' "$INDENT"
if [ -n "$ENTRIES" ]; then
    printf 'fi\n'
fi
