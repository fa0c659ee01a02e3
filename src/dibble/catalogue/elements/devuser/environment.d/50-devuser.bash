# shellcheck shell=bash
# The password has no default and is not named here: what this file does is in the log of a traced build.
export DIB_DEV_USER_USERNAME=${DIB_DEV_USER_USERNAME:-devuser}
export DIB_DEV_USER_GROUPS=${DIB_DEV_USER_GROUPS:-}
export DIB_DEV_USER_SHELL=${DIB_DEV_USER_SHELL:-}
export DIB_DEV_USER_PWDLESS_SUDO=${DIB_DEV_USER_PWDLESS_SUDO:-}
export DIB_DEV_USER_AUTHORIZED_KEYS=${DIB_DEV_USER_AUTHORIZED_KEYS:-}
