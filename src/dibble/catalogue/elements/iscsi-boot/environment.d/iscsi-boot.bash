# shellcheck shell=bash
# The name has no number, so that what other elements set is there.
case ${DISTRO_NAME:-} in
    almalinux | centos | fedora | openeuler | rhel | rocky)
        case ${DIB_DRACUT_ENABLED_MODULES:-} in
            *"name: iscsi"*) ;;
            *)
                export DIB_DRACUT_ENABLED_MODULES="${DIB_DRACUT_ENABLED_MODULES:-}
- name: network
  packages: [dracut-network]
- name: iscsi
  packages: [iscsi-initiator-utils]"
                ;;
        esac
        ;;
esac
