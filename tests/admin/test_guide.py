"""The commands of the guide to the API do what it says, typed as they stand there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.admin.site import Site

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "api.md"


def test_the_commands_of_the_guide_work_in_its_order(tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    script = "\n".join(re.findall(r"```sh\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL))
    assert script.count("call ") >= 10
    script = script.replace("alias call='curl -sS", "call() { curl -sS --fail-with-body -w '\\n'")
    script = re.sub(r"(call\(\) .*json\")'", r'\1 "$@"; }', script)
    with Site(tmp_path / "data") as site:
        variables = {**os.environ, "API": f"{site.base}/api/v1", "TOKEN": "none is asked for here"}
        ran = subprocess.run(
            ["sh", "-e", "-c", script], env=variables, capture_output=True, text=True, timeout=60
        )
        offer = site.get("/api/v1/offers/Shoes").json
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert '"click_url":"http://127.0.0.1:8080/c/summer?' in ran.stdout
    assert offer["window_max"] == "30d"
