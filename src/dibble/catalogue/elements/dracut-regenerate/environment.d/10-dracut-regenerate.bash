# shellcheck shell=bash
export DIB_DRACUT_ENABLED_MODULES=${DIB_DRACUT_ENABLED_MODULES:-"- name: crypt
  packages:
    - cryptsetup
- name: lvm
  packages:
    - lvm2"}
