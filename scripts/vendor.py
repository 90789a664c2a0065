"""Fetch the dashboard's libraries again (needs npm): writes ``static/vendor`` as ``vendor.json`` there says.

``vendor.json`` names each file: package, version, licence, the file in the published package, and the replacements
that make it work in a browser without an import map and without a build step.  To take a newer version, change its
number there and run this; it writes the hashes.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path

VENDOR = Path(__file__).parents[1] / "src/postbackd/admin/static/vendor"


def main() -> None:
    manifest = json.loads((VENDOR / "vendor.json").read_bytes())
    with tempfile.TemporaryDirectory() as directory:
        for name, file in manifest["files"].items():
            package = fetch(f"{file['package']}@{file['version']}", Path(directory))
            published = read_member(package, file["published"])
            file["published_sha256"] = hashlib.sha256(published).hexdigest()
            made = patch(published, file["replace"]) + file.get("append", "").encode()
            file["sha256"] = hashlib.sha256(made).hexdigest()
            (VENDOR / name).write_bytes(made)
            (VENDOR / file["licence_file"]).write_bytes(read_member(package, "LICENSE"))
    (VENDOR / "vendor.json").write_text(json.dumps(manifest, indent=2) + "\n")


def fetch(wanted: str, directory: Path) -> Path:
    """The package as the registry holds it; npm checks its integrity."""
    command = ["npm", "pack", "--silent", wanted]
    done = subprocess.run(command, cwd=directory, check=True, capture_output=True, text=True)
    return directory / done.stdout.strip().splitlines()[-1]


def read_member(package: Path, name: str) -> bytes:
    with tarfile.open(package) as archive:
        member = archive.extractfile(f"package/{name}")
        if member is None:
            raise SystemExit(f"{package.name} holds no file {name}")
        return member.read()


def patch(text: bytes, replacements: list[list[str]]) -> bytes:
    for old, new in replacements:
        if old.encode() not in text:
            raise SystemExit(f"{old!r} is not there any more: look at the new version")
        text = text.replace(old.encode(), new.encode())
    return text


if __name__ == "__main__":
    main()
