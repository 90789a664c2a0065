"""What the admin role lends to its endpoints."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from postbackd.admin_tools import make_tools
from postbackd.settings import Settings


def test_a_command_works_on_the_data_of_its_desk_whatever_a_file_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The desk of the simulated data has no ``store``; the file of a role that runs alone names the real one."""
    file = tmp_path / "postbackd.toml"
    file.write_text('store = "postgresql://nobody@localhost:1/real"\nbackup_dir = "/real"\n', "utf-8")
    file.chmod(0o600)
    run = make_tools(Settings(data=str(tmp_path / "demo")))["run"]

    async def look() -> dict[str, str | None]:
        process = await run(["settings", "--json"])
        printed, complaint = await process.communicate(b"")
        assert process.returncode == 0, complaint
        return {row["name"]: row["value"] for row in json.loads(printed)["settings"]}

    for place in ("named", "found"):
        if place == "named":
            monkeypatch.setenv("POSTBACKD_CONFIG", str(file))
        else:
            monkeypatch.delenv("POSTBACKD_CONFIG")
            monkeypatch.chdir(tmp_path)
        values = asyncio.run(look())
        assert (values["store"], values["backup_dir"]) == (None, None), place
        assert values["data"] == str(tmp_path / "demo")
