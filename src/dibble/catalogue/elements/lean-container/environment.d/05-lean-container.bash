# shellcheck shell=bash
export DIB_CONTAINER=1
export DIB_LEAN_KEEP=${DIB_LEAN_KEEP:-}
