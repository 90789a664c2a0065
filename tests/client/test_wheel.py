"""The wheel as it is installed: in an empty environment, with the README's lines, against the real server."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.ingest.shop import KEY, Shop

_HERE = Path(__file__).parents[2] / "clients/python"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by the locked build backend from a copy, so that nothing is left in the working tree."""
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"
    shutil.copytree(_HERE, source, ignore=shutil.ignore_patterns("*.egg-info", "__pycache__", "build"))
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(place)], cwd=source, check=True, capture_output=True)
    return next(place.glob("*.whl"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds nothing but the wheel."""
    place = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    if find_spec("pip"):
        install = [
            sys.executable,
            "-m",
            "pip",
            "--python",
            str(place / "bin/python"),
            "install",
            "--quiet",
            "--no-index",
        ]
        subprocess.run([*install, "--disable-pip-version-check", str(wheel)], check=True)
    else:  # uv makes environments without pip; a pure wheel is installed by being unpacked
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(next(place.glob("lib/python*/site-packages")))
    return place / "bin/python"


def readme_lines() -> str:
    found = re.search(
        r"```python\n(from postbackd_client.*?)```", (_HERE / "README.md").read_text("utf-8"), re.DOTALL
    )
    assert found
    return found[1]


def test_the_wheel_holds_the_package_its_types_and_its_licence_and_needs_nothing(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
        metadata = packed.read(next(name for name in names if name.endswith("METADATA"))).decode()
        entry_points = packed.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    assert {"postbackd_client/py.typed", "postbackd_client/commands/send.py"} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "Requires-Dist" not in metadata
    assert "Requires-Python: >=3.9" in metadata
    assert "License-Expression: Apache-2.0" in metadata
    assert "postbackd-client = postbackd_client.command_line:main" in entry_points


def test_the_lines_of_the_readme_work_in_an_empty_environment(
    python: Path, server: Shop, tmp_path: Path
) -> None:
    lines = readme_lines()
    assert len([line for line in lines.splitlines() if line.strip()]) <= 10
    lines = lines.replace("https://track.example.com/p/KEY", f"http://127.0.0.1:{server.port}/p/{KEY}")
    lines = lines.replace("/var/lib/shop/postbacks", str(tmp_path / "spool"))
    click_id = server.click()
    program = f"""{lines}
class order: click_id, number = "{click_id}", "A-README"
order_paid(order)
assert client.flush(10) and client.statistics().sent == {{"accepted": 1}}, client.health()
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    subprocess.run([str(python), "-W", "error", "-c", program], check=True, env=environment, timeout=60)
    row = server.rows("SELECT value_micros, currency FROM conversions WHERE transaction_id = 'A-README'")
    assert row == [{"value_micros": 12_500_000, "currency": "USD"}]


def test_every_module_is_written_in_the_syntax_of_python_3_9(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        for name in packed.namelist():
            if name.endswith(".py"):
                ast.parse(packed.read(name), name, feature_version=(3, 9))
