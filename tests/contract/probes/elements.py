"""Probe elements: each script writes down what it finds, into the tree that is built.

They are plain elements for diskimage-builder and for dibble. `probe-os` makes a target of a shell and some programs;
the others leave what they see below `/probe` in it. A file is executable when it begins with an interpreter line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PHASES = (
    "root.d", "extra-data.d", "pre-install.d", "install.d", "post-install.d", "post-root.d", "block-device.d",
    "pre-finalise.d", "finalise.d", "cleanup.d",
)  # fmt: skip
INSIDE = ("pre-install.d", "install.d", "post-install.d", "finalise.d")
HEAD = "#!/bin/bash\nset -eu\nset -o pipefail\n"

ROOT = (
    HEAD
    + r"""
root=$TARGET_ROOT
mkdir -p "$root"/{etc,proc,sys,dev,tmp,run,root,opt,var/log,var/tmp,usr/bin,usr/sbin,usr/lib,usr/lib64}
mkdir -p "$root/usr/local/bin" "$root/usr/lib/systemd/system"
for name in bin sbin lib lib64; do
    ln -s "usr/$name" "$root/$name"
done
add() {
    local library
    mkdir -p "$root$(dirname "$1")"
    cp -L "$1" "$root$1"
    for library in $(ldd "$1" 2>/dev/null | grep -o '/[^ ]*'); do
        mkdir -p "$root${library%/*}"
        [ -e "$root$library" ] || cp -L "$library" "$root$library"
    done
}
for program in awk bash basename cat chmod chown cmp cp cut date dirname env find getopt grep head id install ln ls \
    mkdir mkfifo mktemp mv printenv readlink rm rsync sed sleep sort stat tail tee touch tr uname wc xargs; do
    [ -x "/usr/bin/$program" ] || continue
    add "$(readlink -f "/usr/bin/$program")"
    [ -e "$root/usr/bin/$program" ] || cp -L "/usr/bin/$program" "$root/usr/bin/$program"
done
ln -s bash "$root/usr/bin/sh"
# diskimage-builder's commands inside the target are Python.
if [ -n "${PROBE_PYTHON:-}" ]; then
    python=$(readlink -f "$PROBE_PYTHON")
    add "$python"
    ln -sf "$python" "$root/usr/bin/python3"
    library=$("$python" -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
    mkdir -p "$root$library"
    rsync -a --exclude test --exclude __pycache__ --exclude site-packages --exclude dist-packages \
        --exclude 'config-*' --exclude lib2to3 --exclude idlelib "$library/" "$root$library/"
    # Its YAML, for svc-map.
    cp -r "$PROBE_YAML" "$root$library/yaml"
    # Its file system has to hold a journal.
    head -c 60000000 /dev/zero > "$root/opt/zero"
fi
echo root:x:0:0:root:/root:/bin/bash > "$root/etc/passwd"
echo root:x:0: > "$root/etc/group"
echo 'nameserver 192.0.2.1' > "$root/etc/resolv.conf"
echo uninitialised > "$root/etc/machine-id"
touch "$root/.dotfile"
echo old > "$root/var/log/a.log"
echo old > "$root/root/b.log"
echo old > "$root/root/kept"
mkdir -p "$root/tmp/left over"
echo old > "$root/tmp/left"
"""
)

PLACE = r"""
phase=$(basename "$(dirname "$0")")
case $0 in
    /tmp/in_target.d/*) place=/probe ;;
    *)
        place=$TMP_MOUNT_PATH/probe
        # diskimage-builder's tree is elsewhere while the disk is made
        if [ ! -d "$TMP_MOUNT_PATH" ]; then
            place=$TMP_BUILD_DIR/built/probe
        fi
        ;;
esac
mkdir -p "$place/$phase" "$place/order"
"""

RECORD = (
    HEAD
    + PLACE
    + r"""
here=$place/$phase
echo "$phase" >> "$place/phases"
pwd > "$here/cwd"
id -u > "$here/uid"
umask > "$here/umask"
echo "$#" > "$here/arguments"
env -0 > "$here/env"
cat /proc/self/mountinfo > "$here/mounts"
ls -A "$(dirname "$0")/.." > "$here/hooks"
cat /etc/resolv.conf > "$here/resolv.conf"
type -t die > "$here/die" || true
if [ "$(type -t get_image_element_array)" = function ]; then
    get_image_element_array > "$here/array"
fi
if touch "$(dirname "$0")/../written" 2> "$here/refused"; then
    echo yes > "$here/writable"
fi
cat "$(dirname "$0")/../data.d/a-file" > "$here/data"
if [ -e /etc/resolv.conf.ORIG ] && [ "$place" = /probe ]; then
    cat /etc/resolv.conf.ORIG > "$here/orig"
fi
"""
)

NAME = HEAD + PLACE + 'basename "$0" >> "$place/order/$phase"\n'

PROBE_OS = {
    "element-provides": "operating-system\n",
    "root.d/10-probe-os": ROOT,
    "environment.d/10-probe-os.bash": (
        "export DISTRO_NAME=probe\nexport DIB_RELEASE=1\nexport DIB_INIT_SYSTEM=systemd\n"
    ),
    "bin/install-packages": HEAD + 'mkdir -p /probe\necho "$*" >> /probe/packages\n',
}

PROBE_STATE = {
    **{f"{phase}/50-probe": RECORD for phase in PHASES},
    "data.d/a-file": "data\n",
    "top-file": "top\n",
    ".hidden-top": "hidden\n",
    "README.rst": "probe\n",
    "tests/test_x.py": "pass\n",
    "test-elements/x/README.rst": "x\n",
    "environment.d/50-count": "export PROBE_COUNT=$((${PROBE_COUNT:-0} + 1))\n",
    "environment.d/60-not~": "export PROBE_NOT=yes\n",
    **{
        f"environment.d/{name}": f'export PROBE_ORDER="${{PROBE_ORDER:-}} {name}"\n'
        for name in ("71-b", "71-B", "72-x.bash", "zz")
    },
}

PROBE_ODD_ORDER = {
    f"environment.d/{name}": f'export PROBE_ODD="${{PROBE_ODD:-}} {name}"\n' for name in ("7-x", "65-x", "100-x")
}

_ORDER_NAMES = ("aaa", "9-nine", "10-ten", "10-B", "20-twenty", "100-hundred")
PROBE_ORDER = {
    **{f"{phase}/{name}": NAME for phase in ("extra-data.d", "install.d") for name in _ORDER_NAMES},
    **{f"{phase}/15-dotted.sh": NAME for phase in ("extra-data.d", "install.d")},
    "install.d/16-data": "is data\n",
    "install.d/17-reads": HEAD + PLACE + 'cat "$(dirname "$0")/16-data" > "$place/read"\n',
    "install.d/18-no-shebang": PLACE + 'echo ran > "$place/bare"\n',
    "install.d/below/10-below": NAME,
    # Scripts for later phases may be added, and tell of what they were given.
    "extra-data.d/70-adds": HEAD
    + r"""
printf '#!/bin/bash\necho added > /probe/added\n' > "$TMP_HOOKS_PATH/install.d/75-added"
chmod +x "$TMP_HOOKS_PATH/install.d/75-added"
echo written > "$TMP_MOUNT_PATH/probe/by-host"
""",
}
EXECUTABLE = frozenset({"install.d/18-no-shebang"})
LINKS = {"probe-order": {"install.d/30-link": "10-ten"}, "probe-static": {"static/etc/probe-link": "probe-static"}}

PROBE_STATIC = {
    "static/etc/probe-static": "one\n",
    "static/opt/probe/script": HEAD + "echo\n",
    "static/var/.probe-hidden": "hidden\n",
    "bin/probe-command": HEAD + "echo command\n",
    "init-scripts/systemd/probe.service": "[Unit]\n",
    "init-scripts/openrc/probe": "#!/sbin/openrc-run\n",
    "install.d/60-commands": HEAD
    + r"""
probe-command > /probe/command
dib-init-system > /probe/init-system
readlink /usr/local/bin/dib-python > /probe/dib-python || true
echo "$DIB_PYTHON_VERSION $DIB_PYTHON" > /probe/python-variables
""",
}

PROBE_LIBRARY = {
    "extra-data.d/60-library": HEAD
    + r"""
out=$TMP_MOUNT_PATH/probe
mkdir -p "$out" "$TMP_BUILD_DIR/parts/environment.d" "$TMP_BUILD_DIR/parts/x.d" "$TMP_BUILD_DIR/parts/y.d"
cd "$TMP_BUILD_DIR/parts"
echo 'export PART=$((1 + 1))' > environment.d/10-x
for name in 9-a 10-b c dotted.sh; do
    printf '#!/bin/bash\necho "%s $PART"\n' "$name" > "x.d/$name"
    chmod +x "x.d/$name"
done
echo data > x.d/11-data
printf '#!/bin/bash\nexit 5\n' > y.d/10-five
printf '#!/bin/bash\necho after\n' > y.d/20-after
chmod +x y.d/*
parts=$_LIB/dib-run-parts
"$parts" --list x.d > "$out/parts-list"
"$parts" x.d > "$out/parts-run" 2> "$out/parts-messages"
DIB_DEBUG_TRACE=1 "$parts" x.d > /dev/null 2> "$out/parts-traced"
"$parts" y.d > "$out/parts-failed" 2> "$out/parts-failed-messages" || echo "$?" > "$out/parts-status"
"$parts" 2> /dev/null || echo "$?" > "$out/parts-usage"
RUN_PARTS_REGEX='^c$' "$parts" --list x.d > "$out/parts-pattern"
(
    set +eu
    source "$_LIB/common-functions"
    source "$_LIB/img-functions"
    for name in tmpfs_check save_image finish_image generate_hooks copy_hooks_not_overwrite check_break check_element \
        run_d eval_run_d mount_dev_pts_options mount_proc_dev_sys unmount_dir run_in_target run_d_in_target \
        select_boot_kernel_initrd die; do
        type -t "$name" > /dev/null && echo "$name"
    done
) > "$out/functions"
(source "$_LIB/img-functions"; run_in_target 'echo "$HOME"; pwd') > "$out/run-in-target"
(source "$_LIB/common-functions"; unmount_dir "$TMP_BUILD_DIR/none" > /dev/null; echo "$?") > "$out/unmount-none"
cd /
rm -rf "$TMP_BUILD_DIR/parts"
""",
}

PROBE_PACKAGES = {
    "package-installs.yaml": """\
plain:
early:
  phase: pre-install.d
late:
  phase: post-install.d
removed:
  uninstall: true
built-with:
  build-only: true
arch-yes:
  arch: amd64
arch-list:
  arch: i386, amd64
arch-no:
  arch: s390x
not-arch-yes:
  not-arch: s390x
not-arch-no:
  not-arch: amd64
when-equal:
  when: PROBE_WHEN = one two
when-not-equal:
  when: PROBE_WHEN != one two
when-both:
  when:
    - PROBE_WHEN = one two
    - PROBE_COUNT=1
when-one-fails:
  when:
    - PROBE_WHEN = one two
    - PROBE_COUNT != 1
either:
  - arch: s390x
  - arch: amd64
from-source:
  installtype: source
from-package:
  installtype: package
python3-only:
  dib_python_version: 3
python2-only:
  dib_python_version: 2
in-both:
  uninstall: true
kept-by-filtered:
  uninstall: true
said-no:
  uninstall: false
mapped:
unneeded:
""",
    "package-installs.json": '{"from-json": null}\n',
    "pkg-map": """\
{
  "release": {"debian": {"12": {"all-four": "of-release"}}},
  "distro": {"debian": {"all-four": "of-distro", "three": "of-distro"}, "probe": {"mapped": "real-name other-name"}},
  "family": {"debian": {"all-four": "of-family", "three": "of-family", "two": "of-family"}},
  "default": {"all-four": "of-default", "three": "of-default", "two": "of-default", "one": "of-default", "unneeded": ""}
}
""",
    "svc-map": "ssh:\n  default: sshd\n  probe: ssh-of-probe\nweb:\n  redhat: httpd\n  default: nginx\n",
    "install.d/50-maps": HEAD
    + r"""
out=/probe/maps
mkdir -p "$out"
status() {
    local name=$1 code=0
    shift
    "$@" > "$out/$name" 2> /dev/null || code=$?
    echo "$code" > "$out/$name.status"
}
status precedence pkg-map --distro debian --release 12 --element probe-packages all-four three two one
status unmapped pkg-map --element probe-packages one nowhere
status missing-ok pkg-map --missing-ok --element probe-packages one nowhere
status prefix pkg-map --prefix x= --element probe-packages one
status no-map pkg-map --element probe-none one
status no-map-ok pkg-map --missing-ok --element probe-none one
status empty pkg-map --element probe-packages unneeded
status other-distro pkg-map --distro fedora --element probe-packages three
status svc svc-map ssh web unknown
status noop package-installs-v2 --phase install.d --noop /tmp/package-installs.json
""",
}
PROBE_PACKAGES_TOO = {
    "element-deps": "probe-packages\n",
    "package-installs.yaml": "in-both:\nkept-by-filtered:\n  arch: s390x\n",
}

PROBE_KINDS = {
    **{
        f"install.d/{name}-{kind}-install/7{number}-{name}-{kind}": HEAD + f"echo {name}-{kind} >> /probe/kinds\n"
        for number, (name, kind) in enumerate(
            [
                ("probe-default", "source"), ("probe-default", "package"), ("probe-chosen", "source"),
                ("probe-chosen", "package"),
            ]
        )
    },
}  # fmt: skip

PROBE_SOURCES = {
    "source-repository-probe": (
        "# sources\n"
        "\n"
        "probe-git git /opt/git file://$PROBE_SOURCES/repository other\n"
        "probe-moved git /opt/moved file://$PROBE_SOURCES/none\n"
        "probe-tar tar /opt/tar file://$PROBE_SOURCES/x.tar.gz .\n"
        "probe-part tar /opt/part file://$PROBE_SOURCES/x.tar.gz top\n"
        "probe-file file /opt/file file://$PROBE_SOURCES/a-file\n"
        "probe-skipped file /opt/skipped file://$PROBE_SOURCES/a-file\n"
    ),
}

ELEMENTS: dict[str, dict[str, str]] = {
    "probe-os": PROBE_OS,
    "probe-state": PROBE_STATE,
    "probe-odd-order": PROBE_ODD_ORDER,
    "probe-order": PROBE_ORDER,
    "probe-static": PROBE_STATIC,
    "probe-library": PROBE_LIBRARY,
    "probe-packages": PROBE_PACKAGES,
    "probe-packages-too": PROBE_PACKAGES_TOO,
    "probe-kinds": PROBE_KINDS,
    "probe-sources": PROBE_SOURCES,
    # Of builds that are traced:
    "traced": {
        "install.d/10-x": HEAD + 'if [ "${DIB_DEBUG_TRACE:-0}" -gt 0 ]; then set -x; fi\n: "traced-$((6 * 7))"\n',
        "extra-data.d/10-x": HEAD + 'echo "level-${DIB_DEBUG_TRACE:-none}"\n',
    },
    # Of builds that end badly:
    "fails-outside": {"extra-data.d/10-x": HEAD + "exit 7\n"},
    "fails-inside": {"install.d/10-x": HEAD + "exit 9\n"},
    "fails-late": {"cleanup.d/10-x": HEAD + "exit 11\n"},
    "fails-in-root": {"root.d/20-x": HEAD + "exit 13\n"},
    "fails-by-unset": {"install.d/10-x": HEAD + 'echo "$NOT_THERE"\n'},
    "fails-in-python": {"root.d/20-x": "#!/usr/bin/python3\nimport os\n\nos.nothing()\n"},
    "fails-by-syntax": {"install.d/10-x": HEAD + "if ; then\n"},
    "fails-in-environment": {"environment.d/10-x": "false\n", "install.d/10-x": HEAD},
    "fails-in-environment-syntax": {"environment.d/10-x": "true\nexport X=$((\n", "install.d/10-x": HEAD},
    "fails-in-environment-unset": {"environment.d/10-x": 'export X="$NOT_THERE"\n', "install.d/10-x": HEAD},
    "dies": {"extra-data.d/10-x": HEAD + 'if [[ -d / ]]; then die "no more"; fi\n'},
    "first-of-two": {"install.d/10-same": HEAD},
    "second-of-two": {"install.d/10-same": HEAD},
    "another-os": {"element-provides": "operating-system\n", "root.d/10-another": HEAD},
    "empty-os": {"element-provides": "operating-system\n", "root.d/10-empty": HEAD},
    "needs-unknown": {"element-deps": "no-such-element\n"},
    "in-a-circle": {"element-deps": "in-a-circle-too\n"},
    "in-a-circle-too": {"element-deps": "in-a-circle\n"},
}


def write_elements(place: Path) -> None:
    """All of them, as directories below `place`."""
    for name, files in ELEMENTS.items():
        (place / name).mkdir(parents=True)
        for file, text in files.items():
            path = place / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o755 if text.startswith("#!") or file in EXECUTABLE else 0o644)
        for file, goal in LINKS.get(name, {}).items():
            (place / name / file).symlink_to(goal)
