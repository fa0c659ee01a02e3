# shellcheck shell=bash
export YUM=${YUM:-dnf}
