"""Command line + environment → Request: every option, its twin, who wins, and that order does not matter."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dibble.cli.disk_image_create import disk_image_create
from dibble.cli.options import settings_of
from dibble.errors import UsageError
from dibble.recipe import environment as hook_environment
from dibble.recipe.load import request_of
from dibble.recipe.merge import Host, debian_arch
from dibble.recipe.model import RemoteCache, Request
from dibble.recipe.options import OPTIONS

pytestmark = pytest.mark.unit

HOST = Host(machine="x86_64", home=Path("/home/me"), cwd=Path("/here"), catalogue=Path("/catalogue"))
GIB, MIB = 2**30, 2**20


def compatible(*argv: str, env: dict[str, str] | None = None, ramdisk: bool = False) -> Request:
    """The request of a disk-image-create command line."""
    context = disk_image_create.make_context("disk-image-create", list(argv))
    words = context.params.pop("elements")
    settings = settings_of(context.params, "disk-image-create")
    return request_of(
        words, settings, env or {}, command="disk-image-create", ramdisk=ramdisk, arguments=argv, host=HOST
    )


def own(*words: str, env: dict[str, str] | None = None) -> Request:
    """The request of `dibble build WORDS`."""
    return request_of(words, {}, env or {}, host=HOST)


# What a command line and what an environment make of a field of the request; the first two rows are -a and ARCH.
CASES: list[tuple[list[str], dict[str, str], str, object]] = [
    (["-a", "arm64"], {}, "arch", "arm64"),
    ([], {"ARCH": "aarch64"}, "arch", "arm64"),
    (["-o", "out/web"], {}, "name", "out/web"),
    ([], {"IMAGE_NAME": "web"}, "name", "web"),
    (["-t", "raw,qcow2,raw"], {}, "outputs", ("raw", "qcow2")),
    (["-x", "-x"], {}, "trace", 2),
    (["-xx"], {"DIB_DEBUG_TRACE": "1"}, "trace", 3),
    (["-u"], {}, "compress", False),
    (["-n"], {}, "skip_base", True),
    ([], {"SKIP_BASE": "1"}, "skip_base", True),
    ([], {"SKIP_BASE": "0"}, "skip_base", False),
    (["-p", "vim,tmux", "-p", "less  git"], {}, "packages", ("vim", "tmux", "less", "git")),
    (["--checksum"], {}, "checksums", ("md5", "sha256")),
    ([], {"DIB_CHECKSUM": "1"}, "checksums", ("md5", "sha256")),
    ([], {"DIB_CHECKSUM": "0"}, "checksums", ()),
    ([], {"DIB_CHECKSUM": "sha256"}, "checksums", ("sha256",)),
    ([], {"DIB_CHECKSUM": "sha256,md5"}, "checksums", ("md5", "sha256")),
    (["--image-size", "2.5"], {}, "image_size_bytes", 5 * GIB // 2),
    (["--image-size=700MiB"], {}, "image_size_bytes", 700 * MIB),
    ([], {"DIB_IMAGE_SIZE": "10"}, "image_size_bytes", 10 * GIB),
    (["--image-extra-size", "512"], {}, "image_extra_size_bytes", 512 * MIB),
    ([], {"DIB_IMAGE_EXTRA_SIZE": "1"}, "image_extra_size_bytes", MIB),
    (["--image-cache", "cache"], {}, "cache_dir", Path("/here/cache")),
    ([], {"DIB_IMAGE_CACHE": "/var/cache/dib"}, "cache_dir", Path("/var/cache/dib")),
    ([], {"XDG_CACHE_HOME": "/xdg"}, "cache_dir", Path("/xdg/dibble")),
    ([], {"XDG_CACHE_HOME": "not/absolute"}, "cache_dir", Path("/home/me/.cache/dibble")),
    (["--max-online-resize", "1000"], {}, "max_online_resize", 1000),
    ([], {"MAX_ONLINE_RESIZE": "1000"}, "max_online_resize", 1000),
    (["--min-tmpfs", "8"], {}, "min_tmpfs_gib", 8),
    ([], {"DIB_MIN_TMPFS": "8"}, "min_tmpfs_gib", 8),
    (["--mkfs-journal-size", "32"], {}, "mkfs_journal_size_mib", 32),
    ([], {"DIB_JOURNAL_SIZE": "32"}, "mkfs_journal_size_mib", 32),
    (["--mkfs-options", "-m 0 -i 8192"], {}, "mkfs_options", "-m 0 -i 8192"),
    (["--no-tmpfs"], {}, "no_tmpfs", True),
    ([], {"DIB_NO_TMPFS": "0"}, "no_tmpfs", False),
    ([], {"DIB_NO_TMPFS": "yes"}, "no_tmpfs", True),
    (["--offline"], {}, "offline", True),
    ([], {"DIB_OFFLINE": "0"}, "offline", True),
    ([], {"DIB_OFFLINE": ""}, "offline", False),
    ([], {"DIBBLE_MAX_AGE": "1.5h"}, "max_age_s", 5400),
    ([], {"DIBBLE_SECRETS": "a=one,b=/two"}, "secrets", {"a": Path("/here/one"), "b": Path("/two")}),
    ([], {"DIBBLE_REFRESH": "install.d, root"}, "refresh", ("install.d", "root")),
    ([], {"DIBBLE_KEEP_ON_FAILURE": "1"}, "keep_on_failure", True),
    ([], {"DIBBLE_KEEP_ON_FAILURE": "0"}, "keep_on_failure", False),
    (["--qemu-img-options", "compat=0.10"], {}, "qemu_img_options", "compat=0.10"),
    ([], {"QEMU_IMG_OPTIONS": "compat=0.10"}, "qemu_img_options", "compat=0.10"),
    (["--root-label", "root"], {}, "root_label", "root"),
    ([], {"ROOT_LABEL": "root"}, "root_label", "root"),
    (["--install-type", "package"], {}, "install_type", "package"),
    ([], {"DIB_DEFAULT_INSTALLTYPE": "package"}, "install_type", "package"),
    (["--docker-target", "me/web:1"], {}, "docker_target", "me/web:1"),
    (["--logfile", "log/build"], {}, "logfile", Path("/here/log/build")),
    (["--logfile", "x"], {}, "quiet", True),
    (["--logfile", "x"], {"DIB_QUIET": "0"}, "quiet", False),
    ([], {"DIB_QUIET": "1"}, "quiet", True),
    ([], {"FS_TYPE": "xfs"}, "fs_type", "xfs"),
    ([], {"ELEMENTS_PATH": "mine:/theirs"}, "element_path", tuple(map(Path, ("/here/mine", "/theirs", "/catalogue")))),
    ([], {"OVERWRITE_OLD_IMAGE": "1"}, "overwrite", True),
    ([], {"OVERWRITE_OLD_IMAGE": "0"}, "overwrite", False),
    ([], {"DIB_BLOCK_DEVICE_CONFIG": "file:///x.yaml"}, "block_device_config", "file:///x.yaml"),
    ([], {"DIB_BLOCK_DEVICE_CONFIG": "[]"}, "block_device_source", "DIB_BLOCK_DEVICE_CONFIG"),
    ([], {"DIBBLE_TOOLS": "host"}, "tools", "host"),
    ([], {"DIBBLE_ENVIRONMENT": "kvm"}, "layout", "block-device-efi"),
    ([], {"DIBBLE_REMOTE_CACHE": "s3://b/p"}, "remote_cache", RemoteCache("s3://b/p", push=True)),
    (
        [],
        {"DIBBLE_REMOTE_CACHE": "shared", "DIBBLE_REMOTE_CACHE_PUSH": "no"},
        "remote_cache",
        RemoteCache("/here/shared", push=False),
    ),
    ([], {"DIBBLE_REMOTE_CACHE": "https://c/"}, "remote_cache", RemoteCache("https://c/", push=False)),
    (
        [],
        {"DIBBLE_REMOTE_CACHE": "https://c/", "DIBBLE_REMOTE_CACHE_PUSH": "yes", "DIBBLE_REMOTE_CACHE_KEY": "me.key"},
        "remote_cache",
        RemoteCache("https://c/", push=True, key=Path("/here/me.key")),
    ),
    # What we could add would not be signed, and nobody who asks for signatures would use it.
    (
        [],
        {"DIBBLE_REMOTE_CACHE": "/c", "DIBBLE_REMOTE_CACHE_TRUST": "/k/us.asc"},
        "remote_cache",
        RemoteCache("/c", push=False, trust=Path("/k/us.asc")),
    ),
    (["-c"], {"SKIP_BASE": "1"}, "skip_base", False),
    ([], {"SKIP_BASE": "1", "CLEAR_ENV": "1"}, "skip_base", False),
    ([], {"DIB_SECURE_BOOT_KEY": "a.key"}, "secure_boot_key", Path("/here/a.key")),
    ([], {"DIB_SECURE_BOOT_CERT": "/etc/a.pem"}, "secure_boot_cert", Path("/etc/a.pem")),
    (["--ramdisk-element", "dracut-ramdisk"], {}, "ramdisk", False),
]

DEFAULTS: dict[str, object] = {
    "name": "image",
    "arch": "amd64",
    "elements": ("an-os", "vm"),
    "outputs": ("qcow2",),
    "element_path": (Path("/catalogue"),),
    "packages": (),
    "skip_base": False,
    "ramdisk": False,
    "compress": True,
    "checksums": (),
    "qemu_img_options": "",
    "image_size_bytes": None,
    "image_extra_size_bytes": None,
    "max_online_resize": None,
    "mkfs_options": "",
    "mkfs_journal_size_mib": 64,
    "root_label": None,
    "fs_type": "ext4",
    "offline": False,
    "max_age_s": 3600,
    "refresh": (),
    "keep_on_failure": False,
    "trace": 0,
    "quiet": False,
    "logfile": None,
    "remote_cache": None,
    "install_type": "source",
    "cache_dir": Path("/home/me/.cache/dibble"),
    "docker_target": None,
    "no_tmpfs": False,
    "min_tmpfs_gib": 2,
    "block_device_config": None,
    "block_device_source": "",
    "secrets": {},
    "secure_boot_key": None,
    "secure_boot_cert": None,
    "tools": "tree",
    "cwd": Path("/here"),
    "overwrite": False,
    "layout": "",
    "target": None,
    "arguments": "an-os vm",
}


@pytest.mark.parametrize(("argv", "env", "field", "expected"), CASES)
def test_an_option_or_its_twin_sets_a_field(argv: list[str], env: dict[str, str], field: str, expected: object) -> None:
    assert getattr(compatible(*argv, "an-os", env=env), field) == expected


def test_without_options_every_field_has_its_default() -> None:
    request = compatible("an-os", "vm")
    found = {field.name: getattr(request, field.name) for field in fields(Request) if field.name != "environment"}
    assert found == DEFAULTS


def test_every_option_of_the_table_is_tried() -> None:
    flags = {argument.partition("=")[0] for argv, *_ in CASES for argument in argv}
    twins = {name for _, env, *_ in CASES for name in env}
    for option in OPTIONS:
        if option.flags:
            assert flags & set(option.flags) or any(f.startswith(option.flags[0]) for f in flags), option.key
        if option.variable and option.key != "ramdisk_element":
            assert option.variable in twins, option.key


@pytest.mark.parametrize(
    ("argv", "env", "field", "expected"),
    [
        (["-a", "arm64"], {"ARCH": "i386"}, "arch", "arm64"),
        (["-o", "one"], {"IMAGE_NAME": "two"}, "name", "one"),
        (["--image-size", "3"], {"DIB_IMAGE_SIZE": "4"}, "image_size_bytes", 3 * GIB),
        (["--checksum"], {"DIB_CHECKSUM": "0"}, "checksums", ("md5", "sha256")),
        (["--no-tmpfs"], {"DIB_NO_TMPFS": "0"}, "no_tmpfs", True),
        (["--root-label", "a"], {"ROOT_LABEL": "b"}, "root_label", "a"),
        (["--image-cache", "/a"], {"DIB_IMAGE_CACHE": "/b"}, "cache_dir", Path("/a")),
    ],
)
def test_the_command_line_wins_over_the_environment(
    argv: list[str], env: dict[str, str], field: str, expected: object
) -> None:
    assert getattr(compatible(*argv, "an-os", env=env), field) == expected


PIECES = [
    ["-a", "arm64"],
    ["-o", "x"],
    ["-t", "raw"],
    ["-x"],
    ["-u"],
    ["-p", "vim"],
    ["--checksum"],
    ["--image-size", "3"],
    ["--image-size=3"],
    ["--no-tmpfs"],
    ["--offline"],
    ["--logfile", "log"],
    ["-xnu"],
]


@given(st.permutations([*PIECES, ["an-os"]]))
def test_the_order_of_options_and_elements_does_not_matter(pieces: list[list[str]]) -> None:
    from dataclasses import replace

    def without_arguments(request: Request) -> Request:
        return replace(request, arguments="", environment={**request.environment, "DIB_ARGS": ""})

    expected = compatible(*(word for piece in [*PIECES, ["an-os"]] for word in piece))
    found = compatible(*(word for piece in pieces for word in piece))
    assert without_arguments(found) == without_arguments(expected)


def test_elements_keep_their_order_between_options() -> None:
    assert compatible("one", "-x", "two", "--checksum", "--", "three").elements == ("one", "two", "three")


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (["-o", "web.qcow2"], "web"),
        (["-o", "web.raw", "-t", "raw"], "web"),
        (["-o", "web.raw"], "web.raw"),
        (["-o", "web.raw", "-t", "raw,qcow2"], "web.raw"),
        (["-o", "web.tar.zst", "-t", "tar.zst"], "web"),
    ],
)
def test_the_suffix_of_a_single_output_is_taken_off_the_name(argv: list[str], name: str) -> None:
    assert compatible(*argv, "an-os").name == name


def test_our_own_verb_names_the_image_after_its_elements() -> None:
    assert own("debian-minimal", "vm").name == "debian-minimal-vm"
    assert own("debian-minimal", "vm", env={"IMAGE_NAME": "web"}).name == "web"


@pytest.mark.parametrize("name", ["out/", "..", "/"])
def test_a_name_that_is_a_directory_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="is a directory"):
        compatible("-o", name, "an-os")


@pytest.mark.parametrize("name", ["iscsi://portal/iqn.x/1", "s3://bucket/x"])
def test_a_place_that_is_published_to_is_no_name_of_files(name: str) -> None:
    with pytest.raises(UsageError, match="is no name for files") as caught:
        compatible("-o", name, "an-os")
    assert caught.value.hint.endswith(f"dibble publish NAME.raw --to {name}")


def test_an_unknown_output_format_is_refused_at_once_with_the_nearest() -> None:
    with pytest.raises(UsageError, match='unknown output format "qcow"') as caught:
        compatible("-t", "raw,qcow", "an-os")
    assert "qcow2" in caught.value.hint


def test_no_output_format_at_all_is_refused() -> None:
    with pytest.raises(UsageError, match="no output format") as caught:
        compatible("-t", "", "an-os")
    assert "qcow2" in caught.value.hint


def test_no_element_is_refused() -> None:
    with pytest.raises(UsageError, match="no element"):
        compatible("-x")


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("DIB_IMAGE_SIZE", "ten", 'DIB_IMAGE_SIZE takes a number of GiB.*not "ten"'),
        ("DIB_IMAGE_SIZE", "0", "takes a size above 0"),
        ("DIB_IMAGE_EXTRA_SIZE", "-1", "takes a number of MiB"),
        ("DIB_DEBUG_TRACE", "yes", "takes a whole number"),
        ("DIB_CHECKSUM", "crc", "md5, sha256"),
        ("DIB_MIN_TMPFS", "1.5", "takes a whole number"),
        ("ELEMENTS_PATH", "a::b", "empty entry"),
        ("DIBBLE_TOOLS", "hots", "takes tree or host"),
    ],
)
def test_a_bad_variable_is_named(variable: str, value: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        own("an-os", env={variable: value})
    assert variable in caught.value.message
    assert f"unset {variable}" in caught.value.hint


def test_a_ramdisk_needs_no_memory_disk_unless_told() -> None:
    assert compatible("an-os", ramdisk=True).no_tmpfs
    assert compatible("an-os", ramdisk=True).min_tmpfs_gib == 1
    assert not compatible("an-os", ramdisk=True, env={"DIB_NO_TMPFS": "0"}).no_tmpfs


@pytest.mark.parametrize(
    ("machine", "arch"),
    [
        ("x86_64", "amd64"),
        ("aarch64", "arm64"),
        ("armv7l", "armhf"),
        ("armv8l", "armhf"),
        ("i686", "i386"),
        ("ppc64le", "ppc64el"),
        ("riscv64", "riscv64"),
        ("amd64", "amd64"),
    ],
)
def test_architectures_have_debian_s_names(machine: str, arch: str) -> None:
    assert debian_arch(machine) == arch


def test_hooks_see_the_architecture_as_it_was_typed() -> None:
    request = compatible("-a", "aarch64", "an-os")
    assert (request.arch, request.environment["ARCH"]) == ("arm64", "aarch64")


def test_hooks_see_the_caller_s_variables_but_not_the_host_s() -> None:
    caller = {
        "DIB_RELEASE": "trixie",
        "MY_ELEMENT_OPTION": "x y",
        "https_proxy": "http://proxy:3128",
        "HOME": "/home/me",
        "IMAGE_ELEMENT": "sneaky",
        "PS1": "$ ",
        "SSH_AUTH_SOCK": "/tmp/agent",
        "LD_PRELOAD": "/lib/evil.so",
        "PYTHONPATH": "/src",
        "VIRTUAL_ENV": "/venv",
        "XDG_RUNTIME_DIR": "/run/user/1000",
        "LANG": "de_DE.UTF-8",
        "LC_ALL": "de_DE.UTF-8",
        "BASH_FUNC_ls%%": "() { :; }",
        "TMPDIR": "/var/tmp",
        "OLDPWD": "/",
    }
    request = own("an-os", env=caller)
    assert {name for name in caller if name in request.environment} == {
        "DIB_RELEASE",
        "MY_ELEMENT_OPTION",
        "https_proxy",
        "HOME",
    }


def test_every_host_only_pattern_has_a_reason() -> None:
    patterns = [pattern for pattern, _ in hook_environment.HOST_ONLY]
    assert len(patterns) == len(set(patterns))
    assert all(len(reason) > 10 for _, reason in hook_environment.HOST_ONLY)


def test_a_file_that_every_matrix_writes_to_is_no_part_of_a_build() -> None:
    """Its content would be in every key, for a variable names it."""
    assert hook_environment.for_hooks({"DIBBLE_HISTORY": "/h.sqlite", "DIB_X": "1"}) == {"DIB_X": "1"}


def test_no_variable_of_the_contract_is_host_only() -> None:
    wanted = {option.variable for option in OPTIONS if option.variable} | {"break", "break_cmd", "GENTOO_PROFILE"}
    wanted = {name for name in wanted if not name.startswith(("DIBBLE_", "DIB_SECURE_BOOT_"))}  # ours alone
    assert [name for name in sorted(wanted) if hook_environment.is_host_only(name)] == []


def test_clearing_keeps_the_options_and_drops_the_variables() -> None:
    env = {"DIB_RELEASE": "sid", "HOME": "/home/me", "PATH": "/bin", "http_proxy": "p", "DIB_IMAGE_SIZE": "3"}
    request = compatible("-c", "--root-label", "r", "an-os", env=env)
    assert "DIB_RELEASE" not in request.environment
    assert request.image_size_bytes is None
    assert request.root_label == "r"
    assert {name: request.environment[name] for name in ("HOME", "PATH", "http_proxy")} == {
        "HOME": "/home/me",
        "PATH": "/bin",
        "http_proxy": "p",
    }


def test_options_reach_hooks_under_the_names_of_their_twins() -> None:
    request = compatible(
        *("--image-size", "2.5", "--image-extra-size", "100", "--root-label", "r", "-n", "-u"),
        *("--install-type", "package", "--ramdisk-element", "dracut-ramdisk", "--docker-target", "t"),
        "an-os",
    )
    expected = {
        "DIB_IMAGE_SIZE": "2.5",
        "DIB_IMAGE_EXTRA_SIZE": "100",
        "ROOT_LABEL": "r",
        "SKIP_BASE": "1",
        "COMPRESS_IMAGE": "",
        "DIB_DEFAULT_INSTALLTYPE": "package",
        "RAMDISK_ELEMENT": "dracut-ramdisk",
        "DOCKER_TARGET": "t",
    }
    assert {name: request.environment.get(name) for name in expected} == expected


def test_dib_env_is_text_that_bash_reads_back() -> None:
    import subprocess

    value = 'a "quoted" $HOME `x` \\ text'
    request = own("an-os", env={"DIB_TRICKY": value, "OTHER": "no"})
    assert "OTHER" not in request.environment["DIB_ENV"]
    shown = subprocess.run(
        ["bash", "-c", request.environment["DIB_ENV"] + '\nprintf %s "$DIB_TRICKY"'],
        env={},
        check=True,
        capture_output=True,
        text=True,
    )
    assert shown.stdout == value


def test_where_the_remote_cache_is_does_not_land_in_images() -> None:
    words = ("--remote-cache", "s3://b/p", "--remote-cache-push=no", "-o", "x", "an-os")
    assert request_of(("an-os",), {}, {}, host=HOST, arguments=words).arguments == "-o x an-os"


def test_where_keys_are_neither_lands_in_images_nor_is_a_hook_told() -> None:
    words = ("--secret", "disk=a", "--secure-boot-key=k", "--secure-boot-cert", "c", "an-os")
    assert request_of(("an-os",), {}, {}, host=HOST, arguments=words).arguments == "an-os"
    request = own("an-os", env={"DIB_SECURE_BOOT_KEY": "k", "DIB_SECURE_BOOT_CERT": "c"})
    assert "SECURE_BOOT" not in str(request.environment)


@pytest.mark.parametrize("words", [("-t", "raw"), ("-traw",), ("--outputs", "raw,tar"), ("--outputs=raw",)])
def test_the_formats_do_not_land_in_the_image(words: tuple[str, ...]) -> None:
    assert request_of(("an-os",), {}, {}, arguments=("-x", *words, "an-os"), host=HOST).arguments == "-x an-os"
