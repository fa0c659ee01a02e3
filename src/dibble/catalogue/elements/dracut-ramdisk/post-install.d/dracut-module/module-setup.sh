#!/bin/bash
# dib-lint: disable=sete setu setpipefail dibdebugtrace
# A module of dracut, which calls these functions: what the elements of the image want in the ramdisk.

# Only when it is asked for by name.
check() {
    return 255
}

depends() {
    echo bash
}

# shellcheck disable=SC2154,SC2046 # moddir is dracut's; lists of words
install() {
    local file
    inst_multiple $(cat /etc/dib_binary_deps)
    inst_hook cmdline 95 "$moddir/accept-root.sh"
    inst_hook pre-mount 50 "$moddir/deploy-init.sh"
    for file in "$moddir"/files/*; do
        inst_simple "$file" "/${file##*/}"
    done
    for file in "$moddir"/commands/*; do
        inst_simple "$file" "/usr/bin/${file##*/}"
    done
    for file in /tmp/in_target.d/udev.d/*; do
        if [ -f "$file" ]; then
            inst_simple "$file" "/usr/lib/udev/rules.d/${file##*/}"
        fi
    done
}

# shellcheck disable=SC2046 # lists of words
installkernel() {
    hostonly='' instmods $(cat /etc/dib_dracut_drivers)
}
