"""What the shipped elements for Python, and those that share their image, do to a Debian."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.build.catalogue_images import CLOUD, Image, build
from tests.build.small_elements import SmallElements

if TYPE_CHECKING:
    from tests.people import Person


pytestmark = pytest.mark.build


@pytest.fixture(scope="module")
def python(ourselves: Person) -> Image:
    person = ourselves
    elements = SmallElements(person, person.directory("catalogue-python"))
    elements.write("uses-pip/element-deps", "pip-and-virtualenv\n")
    elements.write("uses-pip/README.rst", "========\nuses-pip\n========\nInstalls by pip.\n")
    elements.script(
        "uses-pip/install.d/70-uses-pip",
        "cat /root/.config/pip/pip.conf > /etc/pip-while-building\n"
        "$DIB_PYTHON_PIP --version > /etc/pip-version\nvirtualenv --version\n"
        "$DIB_PYTHON_VIRTUALENV /opt/own\n/opt/own/bin/pip install glean\necho $PIP_CACHE_DIR > /etc/pip-cache-dir",
    )
    index = person.cache / "pypi/mirror/glean"
    index.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(index), "glean==1.25.1"]
    if not list(index.glob("glean-1.25.1-*.whl")):
        subprocess.run(pip, check=True)
    (index / "index.html").write_text("".join(f'<a href="{p.name}">{p.name}</a>\n' for p in index.glob("*.whl")))
    words = "debian-minimal ensure-venv mellanox nm-dhcp-ib-interfaces pip-and-virtualenv pip-cache pypi simple-init"
    words += " uses-pip"
    variables = {
        "DIB_INSTALLTYPE_pip_and_virtualenv": "package",
        "DIB_INSTALLTYPE_simple_init": "package",
        "DIB_NO_PYPI_PIP": "1",
        "DIB_PIP_RETRIES": "2",
    }
    return build(elements, "python", *words.split(), **variables)


def test_pip_takes_packages_from_the_mirror_while_building_only(python: Image) -> None:
    conf = python.lines("etc/pip-while-building")
    assert "index-url = file:///tmp/pypi" in conf
    assert "retries = 2" in conf
    assert not [line for line in conf if "extra-index-url" in line]
    assert "root/.config/pip/pip.conf" not in python.modes
    assert "root/.pydistutils.cfg" not in python.modes
    assert not [path for path in python.modes if path.startswith("tmp/")]


def test_pip_and_virtual_environments_are_there(python: Image) -> None:
    assert {"python3-pip", "python3-venv", "virtualenv"} <= set(python.packages)
    assert python.lines("etc/pip-version")[0].startswith("pip ")
    assert "opt/own/bin/glean" in python.modes
    assert "root/.cache/pip" not in python.modes


def test_pip_cache_is_where_the_image_does_not_keep_it(python: Image) -> None:
    assert python.lines("etc/pip-cache-dir") == ["/tmp/pip"]


def test_simple_init_leaves_the_network_to_glean(python: Image) -> None:
    assert "opt/glean/bin/glean" in python.modes
    assert python.enabled("glean-early.service")
    assert "glean@" in python.text["etc/udev/rules.d/99-glean.rules"]
    assert [path for path in python.modes if path.startswith("etc/network/interfaces.d/")] == []
    assert python.lines(f"{CLOUD}/91-dib-cloud-init-datasources.cfg") == ["datasource_list: [None]"]


def test_mellanox_modules_are_loaded_at_boot(python: Image) -> None:
    assert {"mlx4_core", "mlx5_core", "ib_ipoib"} <= set(python.lines("etc/modules-load.d/mellanox.conf"))
    assert {"rdma-core", "mstflint"} <= set(python.packages)
    assert "etc/udev/rules.d/81-mellanox.rules" in python.modes


def test_infiniband_gets_its_address_by_dhcp(python: Image) -> None:
    profile = "etc/NetworkManager/system-connections/infiniband.nmconnection"
    assert "type=infiniband" in python.lines(profile)
    assert python.modes[profile] == 0o600
