# shellcheck shell=bash
# The scripts of other elements count on these; only who asks for an image knows what is in it.
export DISTRO_NAME=${DISTRO_NAME:-}
export DIB_RELEASE=${DIB_RELEASE:-}
export DIB_DOCKER_IMAGE=${DIB_DOCKER_IMAGE:-$DISTRO_NAME:$DIB_RELEASE}
export DIB_INIT_SYSTEM=${DIB_INIT_SYSTEM:-systemd}
