# shellcheck shell=bash
# A module of dracut: the containers that the initial ramdisk has to open, also in one that is not for one host alone.
# dracut sets what is used here (dracut.modules(7)).

_root_crypttab() {
    awk '$1 !~ /^#/ && "," $4 "," ~ /,(initramfs|x-initrd\.attach),/' "${dracutsysrootdir-}/etc/crypttab"
}

check() {
    # In a ramdisk for this host dracut's own module crypt looks for them.
    if [ -n "${hostonly-}" ] || [ ! -f "${dracutsysrootdir-}/etc/crypttab" ] || [ -z "$(_root_crypttab)" ]; then
        return 255
    fi
    return 0
}

depends() {
    echo crypt
}

install() {
    mkdir -p "${initdir:?}/etc"
    _root_crypttab > "$initdir/etc/crypttab"
}
