# shellcheck shell=bash
# Whether there is a mirror of one's own is known only before ubuntu-common sets the usual one.
export DIB_UBUNTU_OWN_MIRROR=${DIB_UBUNTU_OWN_MIRROR-${DIB_DISTRIBUTION_MIRROR:-}}
