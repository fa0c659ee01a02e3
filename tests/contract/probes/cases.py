"""The rules of the contract that can be observed, each as a case: what a build of the probe elements must show.

The expected values are facts of diskimage-builder's contract. A case with `differs` is a difference on purpose: it
names the row of docs/differences.md that tells of it, and what diskimage-builder shows.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable  # noqa: TC003 - dataclass field type
from dataclasses import dataclass

from tests.contract.probes.builds import PROBES, SHIPPED, Built
from tests.contract.probes.elements import INSIDE, PHASES

OUTSIDE = tuple(phase for phase in PHASES if phase not in INSIDE)
LATE = ("pre-finalise.d", "finalise.d", "cleanup.d")


BY_CHANCE = object()


@dataclass(frozen=True, slots=True)
class Case:
    """`section` is that of the contract (8: a defect that is mended). `upstream` is what diskimage-builder shows where
    `differs` names a row; BY_CHANCE where that is not the same in each of its builds."""

    name: str
    section: str
    observe: Callable[[Built], object]
    expected: object
    differs: str = ""
    upstream: object = None


def variable(name: str, phase: str) -> Callable[[Built], object]:
    return lambda built: built.environment(phase).get(name)


def text(name: str) -> Callable[[Built], object]:
    return lambda built: built.text(f"probe/{name}")


def lines(name: str) -> Callable[[Built], object]:
    return lambda built: built.lines(f"probe/{name}")


def _cwd(phase: str) -> Callable[[Built], object]:
    def observe(built: Built) -> object:
        found = built.text(f"probe/{phase}/cwd")
        return "the caller's" if found == str(built.place) else found

    return observe


def _in_build(name: str, phase: str) -> Callable[[Built], object]:
    """A variable's path, relative to TMP_BUILD_DIR."""

    def observe(built: Built) -> object:
        env = built.environment(phase)
        return env.get(name, "").removeprefix(env["TMP_BUILD_DIR"] + "/") or None

    return observe


def _mount(point: str) -> Callable[[Built], object]:
    def observe(built: Built) -> object:
        found = built.mounts("install.d").get(point)
        return found and ("read-only" if found[1] else "writable")

    return observe


def _requested(built: Built) -> list[list[str]]:
    """The words of each call of install-packages that names a package."""
    calls = [call.split() for call in built.lines("probe/packages")]
    return [call for call in calls if call not in ([], ["-e"])]


def _asked_for(package: str) -> Callable[[Built], object]:
    """The numbers of the calls of install-packages that name a package, `-` in front where they remove it."""

    def observe(built: Built) -> object:
        found = []
        for number, words in enumerate(_requested(built)):
            if package in words:
                found.append(-number if words[0] == "-e" else number)
        return found

    return observe


def _names(built: Built) -> object:
    return sorted(built.environment("install.d")["IMAGE_ELEMENT"].split())


def _array(built: Built) -> object:
    return sorted(
        word.partition("]=")[0].lstrip("[") for word in shlex.split(built.text("probe/extra-data.d/array") or "")
    )


def _has(name: str) -> Callable[[Built], object]:
    return lambda built: name in built.tree


def _hook(name: str) -> Callable[[Built], object]:
    return lambda built: name in built.lines("probe/extra-data.d/hooks")


def _beside(name: str) -> Callable[[Built], object]:
    return lambda built: (built.place / name).is_file()


def _is_set(name: str) -> Callable[[Built], object]:
    return lambda built: bool(built.environment("install.d").get(name))


def _loop(phase: str) -> Callable[[Built], object]:
    return lambda built: built.environment(phase).get("IMAGE_BLOCK_DEVICE", "")[: len("/dev/loop")] or None


def _map(name: str) -> Callable[[Built], object]:
    def observe(built: Built) -> object:
        return built.lines(f"probe/maps/{name}"), built.text(f"probe/maps/{name}.status")

    return observe


def _starts(name: str, prefix: str) -> Callable[[Built], object]:
    return lambda built: (built.text(f"probe/{name}") or "").startswith(prefix)


def _profiled(name: str) -> Callable[[Built], object]:
    """The scripts in the table of dib-run-parts, sorted; its rows have a name and seconds with three decimals."""

    def observe(built: Built) -> object:
        rows = (re.fullmatch(r"dib-run-parts +(\S+) +\d+\.\d{3}", line) for line in built.lines(f"probe/{name}"))
        return sorted(row[1] for row in rows if row)

    return observe


def _passed_over(name: str) -> Callable[[Built], object]:
    """Which files that are no scripts dib-run-parts speaks of."""
    return lambda built: [one for one in ("11-data", "dotted.sh") if one in (built.text(f"probe/{name}") or "")]


ORDER = ["aaa", "9-nine", "10-B", "10-ten", "20-twenty", "100-hundred"]
ALL = sorted((*PROBES, *SHIPPED, "probe-packages", "cache-url"))

PACKAGES = {
    "early": [0], "plain": [1], "late": [3], "removed": [-2], "built-with": [1, -2], "arch-yes": [1], "arch-no": [],
    "not-arch-yes": [1], "not-arch-no": [], "when-equal": [1], "when-not-equal": [], "when-both": [1],
    "when-one-fails": [], "either": [1], "from-source": [1], "from-package": [], "python3-only": [1],
    "python2-only": [], "in-both": [1], "mapped": [], "real-name": [1], "other-name": [1], "unneeded": [],
    "from-json": [1],
}  # fmt: skip
"""Package → the calls of install-packages that name it, counted from 0; with - where they remove it."""

CASES: tuple[Case, ...] = (
    Case("the build succeeds", "1.5", lambda built: built.status, 0),
    # --- 2.1, 2.2: phases
    Case("the phases come in their order", "2.1", lines("phases"), list(PHASES)),
    *(
        Case(f"{phase}: the working directory", "2.2", _cwd(phase), "/" if phase in INSIDE else "the caller's")
        for phase in PHASES
    ),
    *(Case(f"{phase}: the user is root", "2.2", text(f"{phase}/uid"), "0") for phase in PHASES),
    *(Case(f"{phase}: no arguments", "1.8", text(f"{phase}/arguments"), "0") for phase in PHASES),
    *(
        Case(
            f"{phase}: TARGET_ROOT",
            "2.2",
            _in_build("TARGET_ROOT", phase),
            "mnt" if phase in ("root.d", "cleanup.d") else None,
        )
        for phase in PHASES
    ),
    Case("the umask lets others read", "2.2", text("install.d/umask"), "0022"),
    Case("hooks lie below the build directory", "2.5", _in_build("TMP_HOOKS_PATH", "install.d"), "hooks"),
    Case("the tree lies below the build directory", "2.5", _in_build("TMP_MOUNT_PATH", "install.d"), "mnt"),
    Case("scripts outside may write into the hooks", "2.3", text("extra-data.d/writable"), "yes"),
    Case("scripts inside may not", "2.3", text("install.d/writable"), None),
    Case("a script that an earlier phase adds is run", "2.3", text("added"), "added"),
    Case("extra-data.d writes into the tree", "2.2", text("by-host"), "written"),
    Case("scripts read data of their element outside", "2.3", text("extra-data.d/data"), "data"),
    Case("scripts read data of their element inside", "2.3", text("install.d/data"), "data"),
    # --- 1.8, 2.3: which scripts run, in which order
    Case("the order of scripts outside", "1.8", lines("order/extra-data.d"), ORDER),
    Case(
        "the order of scripts inside, links under their own names",
        "1.8",
        lines("order/install.d"),
        [*ORDER[:5], "30-link", ORDER[5]],
    ),
    Case("files that are not executable are data", "2.2", text("read"), "is data"),
    Case("a script without an interpreter line is run by bash", "1.8", text("bare"), "ran"),
    Case(
        "environment.d: by name",
        "1.8",
        lambda built: built.environment("install.d").get("PROBE_ORDER", "").split(),
        ["71-B", "71-b", "72-x.bash", "zz"],
    ),
    Case(
        "environment.d: by number",
        "1.8",
        lambda built: built.environment("install.d").get("PROBE_ODD", "").split(),
        ["7-x", "65-x", "100-x"],
        "the order in environment.d",
        ["100-x", "65-x", "7-x"],
    ),
    Case("environment.d: other names are passed over", "1.8", variable("PROBE_NOT", "install.d"), None),
    *(
        Case(f"environment.d is sourced anew in {phase}", "2.2", variable("PROBE_COUNT", phase), "1")
        for phase in ("root.d", "install.d", "cleanup.d")
    ),
    Case("tests of elements are not among the hooks", "2.2", _hook("tests"), False),
    Case(
        "test elements are not among the hooks",
        "8",
        _hook("test-elements"),
        False,
        "files for an element's authors",
        True,
    ),
    Case("the README is not among the hooks", "8", _hook("README.rst"), False, "files for an element's authors", True),
    Case("a file beside the directories is among the hooks", "2.3", _hook("top-file"), True),
    Case(
        "hidden files are not among the hooks",
        "2.3",
        _hook(".hidden-top"),
        False,
        "files for an element's authors",
        True,
    ),
    # --- 2.4: the chroot
    Case("inside there is /proc", "2.4", _mount("/proc"), "writable"),
    Case("inside there is /dev", "2.4", _mount("/dev"), "writable"),
    Case("inside there is /dev/pts", "2.4", _mount("/dev/pts"), "writable"),
    Case("inside /sys is read-only", "2.4", _mount("/sys"), "read-only"),
    Case("inside the hooks are read-only", "2.4", _mount("/tmp/in_target.d"), "read-only"),
    Case("inside /run is the target's", "2.4", _mount("/run"), None),
    Case("inside HOME is root's", "2.4", variable("HOME", "install.d"), "/root"),
    Case("inside TMPDIR is unset", "2.4", variable("TMPDIR", "install.d"), None),
    Case("inside VIRTUAL_ENV is unset", "2.4", variable("VIRTUAL_ENV", "install.d"), None),
    Case(
        "inside PATH holds directories only",
        "8",
        lambda built: all(word.startswith("/") for word in built.environment("install.d")["PATH"].split(":")),
        True,
        "PATH inside the target",
        False,
    ),
    Case(
        "inside PATH ends with the usual directories",
        "2.4",
        lambda built: built.environment("install.d")["PATH"].split(":")[-6:],
        ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"],
    ),
    Case("the target's resolv.conf is kept aside", "2.1", text("install.d/orig"), "nameserver 192.0.2.1"),
    Case(
        "inside the host's resolv.conf holds",
        "2.1",
        lambda built: built.text("probe/install.d/resolv.conf") == built.text("probe/extra-data.d/resolv.conf"),
        True,
    ),
    Case(
        "in the end the target has its own again",
        "2.1",
        lambda built: built.text("etc/resolv.conf"),
        "nameserver 192.0.2.1",
    ),
    Case("and nothing is left aside", "2.1", _has("etc/resolv.conf.ORIG"), False),
    # --- 2.5: variables
    *(
        Case(f"{name} in {phase}", "2.5", variable(name, phase), value)
        for name, value in (
            ("IMAGE_NAME", "probe"),
            ("IMAGE_TYPE", "qcow2"),
            ("OUT_IMAGE_PATH", ""),
            ("ARCH", "amd64"),
            ("FS_TYPE", "ext4"),
            ("LC_ALL", "C"),
            ("DIB_DEBUG_TRACE", "0"),
            ("DIB_OFFLINE", ""),
            ("DIB_ROOT_LABEL", "cloudimg-rootfs"),
            ("DIB_ROOT_FSTYPE", "ext4"),
            ("DIB_MOUNTPOINTS", "/"),
            ("DISTRO_NAME", "probe"),
            ("PROBE_VALUE", "two words\nand a 'line'"),
            ("DIB_CHECKSUM", "0"),
        )
        for phase in ("extra-data.d", "install.d")
    ),
    *(
        Case(f"{name} is set", "2.5", _is_set(name), True)
        for name in (
            "_LIB",
            "DIB_PYTHON_EXEC",
            "DIB_IMAGE_CACHE",
            "DIB_LOCKFILES",
            "DIB_ENV",
            "ELEMENTS_PATH",
            "DIB_BLOCK_DEVICE_PARAMS_YAML",
            "TMP_IMAGE_DIR",
        )
    ),
    Case("DIB_BOOT_LABEL is empty without /boot", "2.5", variable("DIB_BOOT_LABEL", "install.d"), ""),
    Case("SKIP_BASE says that there is no base", "1.2", variable("SKIP_BASE", "install.d"), "1"),
    Case("the install type is the default one", "2.5", variable("DIB_DEFAULT_INSTALLTYPE", "extra-data.d"), "source"),
    Case(
        "root.d knows the install type too",
        "2.5",
        variable("DIB_DEFAULT_INSTALLTYPE", "root.d"),
        "source",
        "`DIB_DEFAULT_INSTALLTYPE` in root.d",
        None,
    ),
    Case(
        "DIB_ARGS has the arguments",
        "1.3",
        lambda built: built.environment("install.d")["DIB_ARGS"].split()[-len(PROBES) :],
        list(PROBES),
    ),
    Case(
        "DIB_ARGS has no output format",
        "1.3",
        lambda built: "tar" in built.environment("install.d")["DIB_ARGS"].split(),
        False,
        "`DIB_ARGS`",
        True,
    ),
    Case("DIB_IMAGE_SIZE counts GiB before the disk is made", "2.5", variable("DIB_IMAGE_SIZE", "install.d"), "1"),
    *(
        Case(f"DIB_IMAGE_SIZE counts KiB in {phase}", "2.5", variable("DIB_IMAGE_SIZE", phase), "1048576")
        for phase in ("block-device.d", "finalise.d")
    ),
    Case("IMAGE_ELEMENT names all elements", "2.5", _names, ALL),
    Case("get_image_element_array lists all elements outside", "2.5", _array, ALL),
    Case("get_image_element_array is not there inside", "2.4", text("install.d/array"), None),
    Case(
        "IMAGE_ELEMENT_YAML is sorted",
        "2.5",
        lambda built: [
            line.partition(":")[0] for line in built.environment("install.d")["IMAGE_ELEMENT_YAML"].splitlines()
        ],
        ALL,
    ),
    *(Case(f"die is a function in {phase}", "2.5", text(f"{phase}/die"), "function") for phase in OUTSIDE),
    Case("die is not there inside", "2.4", text("install.d/die"), ""),
    *(
        Case(
            f"IMAGE_BLOCK_DEVICE in {phase}",
            "2.5",
            _loop(phase),
            "/dev/loop" if phase in LATE else None,
        )
        for phase in PHASES
    ),
    Case(
        "IMAGE_BLOCK_DEVICES is the inside of an array",
        "2.5",
        lambda built: _array_names(built.environment("finalise.d").get("IMAGE_BLOCK_DEVICES", "")),
        ["image0"],
    ),
    # --- 2.1, 26: the end
    Case(
        "the fstab is written",
        "5.5",
        lambda built: (built.text("etc/fstab") or "").splitlines()[-1].split(),
        ["LABEL=cloudimg-rootfs", "/", "ext4", "defaults", "0", "1"],
    ),
    Case("files of /tmp are deleted", "2.1", _has("tmp/left"), False),
    Case(
        "files of /tmp with blanks in their names, too",
        "8",
        _has("tmp/left over"),
        False,
        "what is left in `/tmp`",
        True,
    ),
    Case("logs are emptied", "2.1", lambda built: built.text("var/log/a.log"), ""),
    Case("logs in root's home are deleted", "2.1", _has("root/b.log"), False),
    Case("other files in root's home stay", "2.1", lambda built: built.text("root/kept"), "old"),
    Case("hidden files at the top stay", "8", _has(".dotfile"), True, "hidden files at the top of the tree", False),
    Case("nothing of the hooks is left", "2.4", _has("tmp/in_target.d"), False),
    # --- 2.2: directories that elements bring
    Case("static is copied onto the tree", "2.2", lambda built: built.text("etc/probe-static"), "one"),
    Case("static keeps modes", "2.2", lambda built: built.mode("opt/probe/script"), "755 0"),
    Case(
        "static keeps links",
        "2.2",
        lambda built: built.tree["etc/probe-link"].link if "etc/probe-link" in built.tree else None,
        "probe-static",
    ),
    Case("static brings hidden files", "2.2", lambda built: built.text("var/.probe-hidden"), "hidden"),
    Case("commands of elements are on PATH", "2.2", text("command"), "command"),
    Case(
        "commands of elements stay in the image",
        "2.2",
        lambda built: built.mode("usr/local/bin/probe-command"),
        "755 0",
    ),
    Case(
        "shipped commands stay out of the image",
        "8",
        _has("usr/local/bin/pkg-map"),
        False,
        "commands of the shipped elements",
        True,
    ),
    Case(
        "service files of the init system are installed",
        "2.2",
        lambda built: built.text("usr/lib/systemd/system/probe.service"),
        "[Unit]",
    ),
    Case("those of others are not", "2.2", _has("etc/init.d/probe"), False),
    Case("dib-init-system tells the init system", "3.9", text("init-system"), "systemd"),
    Case("dib-python is gone in the end", "3.9", _has("usr/local/bin/dib-python"), False),
    # --- 3.4: package-installs
    Case(
        "packages: pre-install, install, their removal, post-install",
        "3.4",
        lambda built: [call[0] == "-e" for call in _requested(built)],
        [False, False, True, False],
    ),
    *(Case(f"package-installs: {package}", "3.4", _asked_for(package), calls) for package, calls in PACKAGES.items()),
    Case(
        "package-installs: blanks in a list",
        "8",
        _asked_for("arch-list"),
        [1],
        "blanks in `arch` and `not-arch`",
        [],
    ),
    Case(
        "package-installs: an entry that is passed over",
        "8",
        _asked_for("kept-by-filtered"),
        [-2],
        "package-installs entries that do not apply",
        BY_CHANCE,
    ),
    Case("package-installs: uninstall: false", "8", _asked_for("said-no"), [1], "`uninstall: false`", [-2]),
    # --- 3.5, 3.6: maps
    Case(
        "pkg-map: release, distro, family, default",
        "3.5",
        _map("precedence"),
        (["of-release", "of-distro", "of-family", "of-default"], "0"),
    ),
    Case("pkg-map: an unmapped name", "3.5", lambda built: built.text("probe/maps/unmapped.status"), "1"),
    Case("pkg-map: an unmapped name that may be", "3.5", _map("missing-ok"), (["of-default", "nowhere"], "0")),
    Case("pkg-map: a prefix", "3.5", _map("prefix"), (["x=of-default"], "0")),
    Case("pkg-map: no map", "3.5", lambda built: built.text("probe/maps/no-map.status"), "2"),
    Case("pkg-map: no map, which may be", "3.5", _map("no-map-ok"), (["one"], "0")),
    Case("pkg-map: no package is needed", "3.5", lambda built: "".join(built.lines("probe/maps/empty")).strip(), ""),
    Case("pkg-map: another distribution", "3.5", _map("other-distro"), (["of-default"], "0")),
    Case(
        "pkg-map: the map stays in the image",
        "3.5",
        _has("usr/share/pkg-map/probe-packages"),
        False,
        "commands of the shipped elements",
        True,
    ),
    Case("svc-map", "3.6", _map("svc"), (["ssh-of-probe", "nginx", "unknown"], "0")),
    Case(
        "package-installs-v2 --noop prints the command",
        "3.4",
        lambda built: any("install-packages" in line and "plain" in line for line in built.lines("probe/maps/noop")),
        True,
    ),
    # --- 3.7: install types
    Case(
        "install types: the default one, the chosen one",
        "3.7",
        lines("kinds"),
        ["probe-default-source", "probe-chosen-package"],
    ),
    # --- 3.8: sources
    Case("sources: a branch of a repository", "3.8", lambda built: built.text("opt/git/f"), "other"),
    Case("sources: location and reference of a variable", "3.8", lambda built: built.text("opt/moved/f"), "other"),
    Case(
        "sources: the commit is checked out as fetch_REF",
        "3.8",
        lambda built: "refs/heads/fetch_other" in (built.text("opt/git/.git/HEAD") or "") + "refs/heads/fetch_other",
        True,
    ),
    Case("sources: a whole tarball", "3.8", lambda built: built.text("opt/tar/top/f"), "from the tar"),
    Case("sources: a directory of a tarball", "3.8", lambda built: built.text("opt/part/f"), "from the tar"),
    Case("sources: a file", "3.8", lambda built: built.text("opt/file"), "a file"),
    Case("sources: another install type", "3.8", _has("opt/skipped"), False),
    Case(
        "sources: the destinations are listed",
        "3.8",
        lambda built: sorted(built.lines("etc/dib-source-repositories")),
        ["/opt/file", "/opt/git", "/opt/moved", "/opt/part", "/opt/tar"],
    ),
    Case(
        "sources: the commits are in the manifest",
        "3.8",
        lambda built: [line.split()[:3] for line in built.lines("etc/dib-manifests/dib-manifest-git-probe")],
        [["probe-git", "git", "/opt/git"], ["probe-moved", "git", "/opt/moved"]],
    ),
    # --- 7: manifests
    Case("manifests are for root only", "7", lambda built: built.mode("etc/dib-manifests/dib_arguments"), "600 0"),
    Case("manifests stand beside the image", "7", _beside("probe.d/dib-manifests/dib_arguments"), True),
    Case(
        "manifests tell the variables",
        "7",
        lambda built: any(
            "PROBE_COUNT" not in line and "DIB_INSTALLTYPE_probe_chosen" in line
            for line in built.lines("etc/dib-manifests/dib_environment")
        ),
        True,
    ),
    Case(
        "manifests hide secrets",
        "8",
        lambda built: 'DIB_PROBE_SECRET="shown"' in (built.text("etc/dib-manifests/dib_environment") or ""),
        False,
        "secrets in manifests",
        True,
    ),
    Case(
        "the elements are listed", "7", lambda built: sorted(built.lines("etc/dib-manifests/dib-element-manifest")), ALL
    ),
    # --- 1.8, 4.1: libraries
    Case("dib-run-parts lists in order", "1.8", lines("parts-list"), ["x.d/c", "x.d/9-a", "x.d/10-b"]),
    Case("dib-run-parts runs with environment.d", "1.8", lines("parts-run"), ["c 2", "9-a 2", "10-b 2"]),
    Case(
        "dib-run-parts tells its times",
        "1.8",
        lambda built: (
            {"c", "9-a", "10-b"} <= {word for line in built.lines("probe/parts-messages") for word in line.split()}
        ),
        True,
    ),
    Case("dib-run-parts tells how long each script took", "1.8", _profiled("parts-messages"), ["10-b", "9-a", "c"]),
    Case("dib-run-parts tells no times when a script fails", "1.8", _profiled("parts-failed-messages"), []),
    Case("dib-run-parts passes files over in silence", "1.8", _passed_over("parts-messages"), []),
    Case("a traced dib-run-parts names them", "1.8", _passed_over("parts-traced"), ["11-data", "dotted.sh"]),
    Case("dib-run-parts ends with a script's status", "1.8", text("parts-status"), "5"),
    Case("dib-run-parts stops there", "1.8", text("parts-failed"), ""),
    Case("dib-run-parts without a directory", "1.8", text("parts-usage"), "1"),
    Case("RUN_PARTS_REGEX says what a script is called", "1.8", lines("parts-pattern"), ["x.d/c"]),
    Case("the libraries have their functions", "4.1", lambda built: len(built.lines("probe/functions")), 16),
    Case("run_in_target runs in the target as root", "4.1", lines("run-in-target"), ["/root", "/"]),
    Case("unmount_dir takes a directory that is not there", "4.1", text("unmount-none"), "0"),
)


def _array_names(literal: str) -> list[str]:
    return [word.partition("]")[0].lstrip("[") for word in literal.split()]


@dataclass(frozen=True, slots=True)
class Ending:
    """A build of `words` that ends with `status`; `said` stands in what it prints."""

    words: tuple[str, ...]
    status: int
    section: str
    said: tuple[str, ...] = ()
    differs: str = ""
    upstream: int | None = None
    variables: tuple[tuple[str, str], ...] = ()


ENDINGS: dict[str, Ending] = {
    "a traced build shows the commands": Ending(
        ("-x", "-x", "probe-os", "traced"), 0, "1.2", (": traced-42", "level-2"), variables=(("PROBE_VALUE", "traced"),)
    ),
    "a script outside fails": Ending(("probe-os", "fails-outside"), 7, "1.5", ("extra-data.d/10-x:4", "fails-outside")),
    "a script inside fails": Ending(("probe-os", "fails-inside"), 9, "1.5", ("install.d/10-x:4", "fails-inside")),
    "a script of cleanup.d fails": Ending(("probe-os", "fails-late"), 11, "1.5", ("cleanup.d/10-x",)),
    "a script of root.d fails": Ending(("probe-os", "fails-in-root"), 13, "1.5", ("root.d/20-x",)),
    "a script asks for an unset variable": Ending(
        ("probe-os", "fails-by-unset"), 1, "1.8", ("NOT_THERE", "install.d/10-x:4")
    ),
    "a script that is no shell script fails": Ending(("probe-os", "fails-in-python"), 1, "1.8", ("root.d/20-x:4",)),
    "a script cannot be read by the shell": Ending(("probe-os", "fails-by-syntax"), 2, "1.8", ("install.d/10-x:4",)),
    "environment.d fails": Ending(("probe-os", "fails-in-environment"), 1, "1.8", ("environment.d/10-x:1",)),
    "environment.d cannot be read by the shell": Ending(
        ("probe-os", "fails-in-environment-syntax"), 2, "1.8", ("environment.d/10-x:2",)
    ),
    "environment.d asks for an unset variable": Ending(
        ("probe-os", "fails-in-environment-unset"), 1, "1.8", ("NOT_THERE",)
    ),
    "die ends the build": Ending(("probe-os", "dies"), 1, "8", ("no more",), "`die`", 0),
    "two elements have the same script": Ending(
        ("probe-os", "first-of-two", "second-of-two"), 1, "2.3", ("install.d/10-same", "first-of-two", "second-of-two")
    ),
    "two elements are operating systems": Ending(("probe-os", "another-os"), 1, "3.2", ("operating-system",)),
    "no element is an operating system": Ending(("fails-outside",), 1, "3.2", ("operating system",)),
    "an element is unknown": Ending(("probe-os", "no-such-element"), 1, "3.2", ("no-such-element",)),
    "an element needs an unknown one": Ending(
        ("probe-os", "needs-unknown"), 1, "3.2", ("no-such-element", "element-deps:1")
    ),
    "no element is given": Ending((), 1, "1.2"),
    "the root stays empty": Ending(("empty-os",), 1, "2.1", ("empty",)),
    "elements need one another": Ending(("probe-os", "in-a-circle"), 0, "3.2"),
    "a directory of ELEMENTS_PATH is missing": Ending(
        ("probe-os",), 1, "3.2", ("/no/such/directory",), variables=(("ELEMENTS_PATH", "/no/such/directory"),)
    ),
}
