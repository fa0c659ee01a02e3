#!/bin/bash
#
# Has a network interface set up by DHCP, unless somebody has set it up otherwise. Started by udev for every interface
# that turns up.
#
#   dhcp-all-interfaces.sh INTERFACE

if [ "${DIB_DEBUG_TRACE:-0}" -gt 0 ]; then
    set -x
fi
set -eu
set -o pipefail

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

INTERFACE=${1:?usage: dhcp-all-interfaces.sh INTERFACE}
TIMEOUT=30
if [ -f /etc/default/dhcp-all-interfaces ]; then
    # shellcheck source=/dev/null
    . /etc/default/dhcp-all-interfaces
fi
ROOT=${DHCP_ALL_INTERFACES_ROOT:-}
ENI=$ROOT/etc/network/interfaces
SCRIPTS=$ROOT/etc/sysconfig/network-scripts
WICKED=$ROOT/etc/sysconfig/network

say() {
    echo "dhcp-all-interfaces: $*"
}

configured() {
    if grep -qsE "^[[:space:]]*iface[[:space:]]+${INTERFACE}[[:space:]]" "$ENI" "$ENI".d/*; then
        return 0
    fi
    [ -e "$SCRIPTS/ifcfg-$INTERFACE" ] || [ -e "$WICKED/ifcfg-$INTERFACE" ]
}

# Ethernet (1) and InfiniBand (32); no loopback, tunnels, bridges' ports or parts of a bond.
wanted() {
    local class=$ROOT/sys/class/net/$INTERFACE
    case $(cat "$class/type") in
        1 | 32) ;;
        *) return 1 ;;
    esac
    [ ! -e "$class/master" ]
}

has_cable() {
    local class=$ROOT/sys/class/net/$INTERFACE left=$TIMEOUT
    ip link set dev "$INTERFACE" up || return 1
    while [ "$left" -gt 0 ]; do
        if [ "$(cat "$class/carrier" 2> /dev/null || echo 0)" = 1 ]; then
            return 0
        fi
        sleep 1
        left=$((left - 1))
    done
    return 1
}

if [ ! -d "$ROOT/sys/class/net/$INTERFACE" ]; then
    say "there is no interface $INTERFACE"
    exit 0
fi
if ! wanted; then
    say "$INTERFACE is left alone: it is neither Ethernet nor InfiniBand, or part of another interface"
    exit 0
fi
if configured; then
    say "$INTERFACE is set up already"
    exit 0
fi
if ! has_cable; then
    say "$INTERFACE has no cable"
    ip link set dev "$INTERFACE" down || true
    exit 0
fi

if [ -f "$ENI" ]; then
    mkdir -p "$ENI.d"
    printf 'allow-hotplug %s\niface %s inet dhcp\n' "$INTERFACE" "$INTERFACE" > "$ENI.d/$INTERFACE"
elif [ -d "$SCRIPTS" ]; then
    printf 'DEVICE=%s\nBOOTPROTO=dhcp\nONBOOT=yes\nNM_CONTROLLED=no\nPERSISTENT_DHCLIENT=1\n' "$INTERFACE" \
        > "$SCRIPTS/ifcfg-$INTERFACE"
elif [ -d "$WICKED" ]; then
    printf "STARTMODE='auto'\nBOOTPROTO='dhcp'\n" > "$WICKED/ifcfg-$INTERFACE"
else
    say "there is nothing that could look after $INTERFACE: neither ifupdown nor network scripts nor wicked" >&2
    exit 1
fi
say "$INTERFACE gets its address by DHCP"
