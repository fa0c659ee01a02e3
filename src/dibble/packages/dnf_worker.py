"""What runs in the tools tree: dnf's own library decides, and carries out what was decided.

This file is no module of dibble's: its text is given to the Python that the tree's dnf belongs to. Its argument is a
home with rpm's settings. Each line of standard input is a request as JSON (`dnf.py: Dnf._asked`): to decide something,
and perhaps then to do what was decided last. What is printed is for the user, but for a line behind a mark for each
request: the answer as JSON.
"""

# mypy: ignore-errors
# ruff: noqa: PLR0917
# The library has no types, and wants methods with its own arguments.

import hashlib
import json
import os
import sys
from pathlib import Path

HOME = os.environ["HOME"]
# rpm reads its settings when it is loaded, and libdnf has it read them again: only a file for the user lasts
os.environ["HOME"] = sys.argv[1]

import dnf  # noqa: E402
import dnf.exceptions  # noqa: E402
import dnf.rpm  # noqa: E402
import dnf.yum.rpmtrans  # noqa: E402

MARK = "\x1edibble "


class Refused(Exception):
    """What has no answer; `kind` is one of those that `dnf.py` knows, `names` what it is about."""

    def __init__(self, kind, text, names=()):
        super().__init__(text)
        self.kind, self.names = kind, list(names)


class Display(dnf.yum.rpmtrans.TransactionDisplay):
    """Prints a line for each package that is begun, and what scriptlets print."""

    def __init__(self):
        super().__init__()
        self.errors = []
        self._shown = set()

    def progress(self, package, action, ti_done, ti_total, ts_done, ts_total):
        text = f"{dnf.transaction.ACTIONS.get(action, action)} {package}"
        if package and text not in self._shown:
            self._shown.add(text)
            print(f"{text} ({ts_done}/{ts_total})", flush=True)

    def scriptout(self, msgs):
        text = msgs.decode("utf-8", "replace") if isinstance(msgs, bytes) else msgs or ""
        if text.strip():
            print(text.rstrip("\n"), flush=True)

    def error(self, message):
        self.errors.append(str(message))
        print(message, flush=True)


class KeyImport(dnf.callback.KeyImport):
    """A repository's own keys, which its file names, may sign its metadata."""

    def confirm(self, id, userid, fingerprint, url, timestamp):
        return True


def opened(asked):
    """The library, set up for the root that the request names."""
    base = dnf.Base(dnf.conf.Conf())  # the default one looks for packages of the tools tree
    conf = base.conf
    root = asked["root"]
    conf.config_file_path = "/dev/null"
    settings = Path(root, "etc/dnf/dnf.conf")
    if asked["of_target"] and settings.is_file():
        conf.read(str(settings), priority=dnf.conf.PRIO_MAINCONFIG)
    conf.installroot = root
    conf.persistdir = f"{root}/var/lib/dnf"
    conf.cachedir = asked["cache"]
    conf.logdir = "/tmp"  # noqa: S108 - of the tools tree's view, which lasts as long as the build
    conf.plugins = False
    conf.assumeyes = True
    conf.keepcache = True
    conf.gpgcheck = True
    conf.cacheonly = asked["cache_only"]
    conf.metadata_expire = asked["max_age_s"]
    conf.clean_requirements_on_remove = False
    conf.strict = asked["strict"]
    conf.arch = asked["arch"]
    conf.ignorearch = True
    if asked["of_target"]:
        conf.substitutions.update_from_etc(root, varsdir=("/etc/yum/vars/", "/etc/dnf/vars/"))
        for name in ("basearch", "arch"):  # an image for i386 says so there
            conf.substitutions[name] = conf.substitutions.get(name)
    version = asked["releasever"] or dnf.rpm.detect_releasever(root)
    if version:
        conf.releasever = version
    conf.substitutions.update(asked["variables"])
    conf.reposdir = asked["reposdirs"]
    base.read_all_repos()
    for repo in base.repos.iter_enabled():
        repo.metadata_expire = asked["max_age_s"]
        repo.skip_if_unavailable = False
        repo._set_key_import(KeyImport())
        if not repo.gpgcheck:
            repo.gpgcheck = not asked["unsigned"]
    return base


def filled(base, asked):
    """Read the metadata. The repositories are asked for at most once in `metadata_expire` seconds."""
    enabled = list(base.repos.iter_enabled())
    if not enabled:
        raise Refused("no-repositories", "no repository is enabled")
    try:
        base.fill_sack(load_system_repo=asked["of_target"])
    except dnf.exceptions.RepoError as error:
        raise Refused("repository", str(error), [f"{repo.id}: {places(repo)[0]}" for repo in enabled]) from error


def places(repo):
    return [str(url).rstrip("/") for url in (repo._repo.getMirrors() or repo.baseurl or [repo.metalink or ""])]


def goal(base, asked):
    """Say what is wanted; returns the names that no repository has."""
    missing = []
    if groups := [spec for spec in asked["install"] if spec.startswith("@")]:
        raise Refused("groups", "groups of packages", groups)  # libcomps 0.1.21 for Python 3.13 crashes on them
    for spec in asked["earlier"]:
        base.install(spec)
    for spec in asked["remove"]:
        try:
            base.remove(spec)
        except dnf.exceptions.MarkingError:
            print(f"{spec} is not installed", flush=True)
    local = [spec for spec in asked["install"] if spec.startswith("/") and spec.endswith(".rpm")]
    for package in base.add_remote_rpms(local, strict=True) if local else ():
        base.package_install(package)
    for spec in asked["install"]:
        if spec in local:
            continue
        try:
            base.install(spec)
        except dnf.exceptions.MarkingError:
            missing.append(spec)
    if asked["upgrade"]:
        base.upgrade_all()
    return missing


def decided(base, asked):
    """Resolve; the transaction as plain data."""
    missing = goal(base, asked)
    if missing and (asked["strict"] or len(missing) == len(asked["install"])):
        raise Refused("missing", "no package", missing)
    try:
        base.resolve(allow_erasing=bool(asked["remove"]))
    except dnf.exceptions.DepsolveError as error:
        raise Refused("conflict", str(error)) from error
    incoming = sorted(base.transaction.install_set) if base.transaction else []
    outgoing = sorted(base.transaction.remove_set) if base.transaction else []
    replaced = {package.name for package in outgoing}
    earlier = set(asked["earlier"])
    rows = [row(package) for package in incoming if str(package) not in earlier]
    names = {package.name for package in incoming}
    return {
        "install": [one for one in rows if one["name"] not in replaced],
        "upgrade": [one for one in rows if one["name"] in replaced],
        "remove": sorted(replaced - names),
        "missing": missing,
        "repositories": [described(repo) for repo in base.repos.iter_enabled()],
    }


def row(package):
    kind, digest = package.returnIdSum() or ("", "")
    urls = [f"{place}/{package.location}" for place in places(package.repo)] if not package._from_cmdline else []
    return {
        "name": package.name,
        "version": package.evr if package.epoch else f"{package.version}-{package.release}",
        "arch": package.arch,
        "nevra": str(package),
        "urls": urls[:8],
        "sha256": digest if kind == "sha256" else "",
        "size": package.downloadsize,
        "repository": package.reponame,
    }


def described(repo):
    file = Path(repo._repo.getCachedir(), "repodata/repomd.xml")
    return {
        "id": repo.id,
        "place": places(repo)[0],
        "metalink": repo.metalink or "",
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "",
        "gpgcheck": bool(repo.gpgcheck),
        "keys": list(repo.gpgkey),
    }


def carried_out(base, asked, transaction):
    """Do what was decided, which must be what is expected."""
    rows = transaction["install"] + transaction["upgrade"]
    found = sorted(one["nevra"] for one in rows)
    if found != sorted(asked["expected"]):
        raise Refused("changed", "the repositories have changed", sorted(set(found) ^ set(asked["expected"])))
    for repo in base.repos.iter_enabled():
        repo.pkgdir = asked["packages"]
        repo.gpgkey = asked["keys"] or repo.gpgkey
    os.environ["HOME"] = HOME  # scriptlets are run with it
    display = Display()
    wanted = [package for package in base.transaction.install_set if not package._from_cmdline]
    base.download_packages(wanted)
    try:
        base.do_transaction(display)
    except dnf.exceptions.Error as error:
        raise Refused("transaction", str(error), display.errors) from error
    return {"errors": display.errors}


def main():
    os.umask(0o022)
    base = transaction = None
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            if asked["action"] == "apply":
                answer = carried_out(base, asked, transaction)
            else:
                base = opened(asked)
                filled(base, asked)
                answer = transaction = decided(base, asked)
        except Refused as refused:
            answer = {"refused": refused.kind, "text": str(refused), "names": refused.names}
        except dnf.exceptions.Error as error:
            answer = {"refused": "other", "text": str(error), "names": []}
        if asked["action"] == "apply":
            base.close()
        print(f"{MARK}{json.dumps(answer)}", flush=True)


main()
