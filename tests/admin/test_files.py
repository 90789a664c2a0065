"""The dashboard's files: what is in them, what they weigh, and how they are served."""

from __future__ import annotations

import gzip
import hashlib
import json
import re

import pytest

from postbackd.admin.app import STATIC
from tests.admin.site import Site

MOST_BYTES = 80_000

SHIPPED = (".html", ".js", ".css", ".svg")


def read_all(*, vendored: bool) -> dict[str, str]:
    files = (path for path in STATIC.rglob("*") if path.suffix in SHIPPED)
    named = {path.relative_to(STATIC).as_posix(): path.read_text("utf-8") for path in files}
    return {name: text for name, text in named.items() if vendored or not name.startswith("vendor/")}


def test_the_files_weigh_what_the_readme_says_and_no_page_loads_more_than_80_kb() -> None:
    first = {
        "index.html",
        "mark.svg",
        *re.findall(r'="\{files\}/([^"]+)"', (STATIC / "index.html").read_text("utf-8")),
    }
    shell = _with_imports(first)
    weights: dict[str, int] = {}
    for page in sorted((STATIC / "pages").glob("*.js")):
        loaded = _with_imports({*shell, f"pages/{page.name}"})
        if "parts/chart.js" in loaded:
            loaded |= {"vendor/uplot.js", "vendor/uplot.css"}
        weights[page.stem] = sum(map(_weigh, loaded))
    assert max(weights.values()) < MOST_BYTES
    weights["in all"] = sum(map(_weigh, read_all(vendored=True)))
    weights["of it vendored"] = weights["in all"] - sum(map(_weigh, read_all(vendored=False)))
    said = re.findall(
        r"^\| ([a-z_ ]+?) \| ([0-9.]+) kB \|$", (STATIC / "README.md").read_text("utf-8"), re.MULTILINE
    )
    made = [(name, f"{weight / 1000:.0f}") for name, weight in weights.items()]
    assert said == made, "\n".join(f"| {name} | {kilobytes} kB |" for name, kilobytes in made)


def _weigh(name: str) -> int:
    return len(gzip.compress((STATIC / name).read_bytes(), 9))


def _with_imports(names: set[str]) -> set[str]:
    """The files, and what they import before they run."""
    found: set[str] = set()
    left = [*names]
    while left:
        name = left.pop()
        if name in found:
            continue
        found.add(name)
        if name.endswith(".js"):
            text = (STATIC / name).read_text("utf-8")
            here = (STATIC / name).parent
            others = re.findall(r"""(?:from|import)\s*["'](\.[^"']+)["']""", text)
            left += [(here / other).resolve().relative_to(STATIC.resolve()).as_posix() for other in others]
    return found


def test_other_peoples_files_are_as_they_were_published_but_for_the_replacements_that_are_named() -> None:
    vendor = STATIC / "vendor"
    files = json.loads((vendor / "vendor.json").read_bytes())["files"]
    for name, file in files.items():
        made = (vendor / name).read_bytes()
        assert hashlib.sha256(made).hexdigest() == file["sha256"], name
        assert (vendor / file["licence_file"]).stat().st_size > 500
    shipped = {path.name for path in vendor.iterdir() if path.suffix in SHIPPED}
    assert shipped == set(files)


def test_nothing_of_ours_makes_markup_or_code_out_of_text() -> None:
    forbidden = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|dangerouslySetInnerHTML|createContextualFragment"
        r"|\beval\(|new Function|setTimeout\(\s*[\"'`]|DOMParser|srcdoc|javascript:|setAttribute\(.style|[\"'`(]https?://(?!www\.w3\.org)"
    )
    found = {
        name: match.group()
        for name, text in read_all(vendored=False).items()
        for match in forbidden.finditer(text)
    }
    assert found == {}


def test_pages_hold_no_script_and_no_style_of_their_own() -> None:
    for name, text in read_all(vendored=False).items():
        if name.endswith(".html"):
            assert not re.search(r"<style|\sstyle=|\son\w+=", text), name
            assert all(" src=" in tag for tag in re.findall(r"<script[^>]*>", text)), name
        assert not re.search(r"<[a-z]+[^>]*\sstyle=[\"']", text), name


def test_every_module_that_is_named_is_there() -> None:
    for name, text in read_all(vendored=False).items():
        for other in re.findall(r"""(?:from|import\()\s*["'](\.[^"']+)["']""", text):
            assert ((STATIC / name).parent / other).resolve().is_file(), f"{name} imports {other}"
        for other in re.findall(r"""(?:href|src)="\{files\}/([^"]+)""", text):
            assert (STATIC / other).is_file(), f"{name} names {other}"


def test_the_first_page_is_asked_for_again_and_what_it_names_is_kept(site: Site) -> None:
    first = site.get("/")
    assert first.headers["cache-control"] == "no-cache"
    assert site.get("/", {"If-None-Match": first.headers["etag"]}).status == 304
    named = re.findall(r'(?:href|src)="(/files/[^"]+)"', first.body.decode())
    assert len(named) > 10
    for address in named:
        answer = site.get(address, {"Accept-Encoding": "gzip"})
        assert answer.status == 200, address
        assert "immutable" in answer.headers["cache-control"]
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    script = next(address for address in named if address.endswith("preact.js"))
    packed = site.get(script, {"Accept-Encoding": "gzip"})
    assert packed.headers["content-type"].startswith("text/javascript")
    assert gzip.decompress(packed.body) == site.get(script).body


@pytest.mark.parametrize(
    "path",
    [
        "/files/0000000000000000/app/main.js",
        "/vendor/preact.LICENSE",
        "/README.md",
        "/../app.py",
        "/files/x",
        "/%2e%2e/app.py",
        "//etc/passwd",
    ],
)
def test_nothing_else_is_served(site: Site, path: str) -> None:
    assert site.get(path).status == 404
