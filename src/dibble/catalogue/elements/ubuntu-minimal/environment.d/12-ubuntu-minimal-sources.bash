# shellcheck shell=bash
# The newest packages from the start, instead of a second installation of some by the upgrade; backports only on request.
if [ "${DIB_AVOID_PACKAGES_UPDATE:-0}" = "0" ] && [ -z "${DIB_DEBOOTSTRAP_SOURCES:-}" ]; then
    DIB_DEBOOTSTRAP_SOURCES=
    for _pocket in ${DIB_UBUNTU_MIRROR_DISTS//,/ }; do
        if [ "$_pocket" != "backports" ]; then
            DIB_DEBOOTSTRAP_SOURCES+="deb $DIB_DISTRIBUTION_MIRROR $DIB_RELEASE-$_pocket ${DIB_DEBIAN_COMPONENTS//,/ }
"
        fi
    done
    unset _pocket
fi
export DIB_DEBOOTSTRAP_SOURCES=${DIB_DEBOOTSTRAP_SOURCES:-}
