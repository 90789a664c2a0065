"""What can be said of the container files where no engine runs: their text, and the commands in them run by hand."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from postbackd.sealing import read_keys
from postbackd.settings_sources import load_settings
from tests.deploy.fronts import check, lay_nginx
from tests.deploy.tools import DEPLOY, ROOT, need, run
from tests.trust.server import Server, free_port

DOCKER = DEPLOY / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
COMPOSE = ("compose.single.yml", "compose.cluster.yml")


def instructions() -> list[tuple[str, str]]:
    """(word, rest) of each instruction of the Dockerfile, continued lines joined."""
    lines = [line for line in DOCKERFILE.splitlines() if line.strip() and not line.startswith("#")]
    text = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in text.splitlines())]


def of(word: str) -> list[str]:
    return [rest for name, rest in instructions() if name == word]


# --- the image ----------------------------------------------------------------------------------------------


def test_the_base_is_pinned_to_a_version_and_the_same_in_both_stages() -> None:
    assert [re.sub(r" AS .*", "", base) for base in of("FROM")] == ["python:${PYTHON}"] * 2
    (version,) = of("ARG")
    assert re.fullmatch(r"PYTHON=3\.\d+\.\d+-slim-\w+", version)


def test_nothing_without_a_hash_is_installed() -> None:
    installs = [
        part for rest in of("RUN") for part in rest.split("&&") if "pip" in part and "install" in part
    ]
    assert installs
    for install in installs:
        assert "--no-deps" in install
        assert "--require-hashes" in install or "/build/wheels/" in install
    for lock in re.findall(r"--requirement (\S+)", DOCKERFILE):
        assert "--hash=sha256:" in (ROOT / lock).read_text()


def test_the_image_runs_as_a_numbered_user_who_is_not_root() -> None:
    assert of("USER") == ["10001:10001"]
    last = [word for word, _ in instructions()]
    assert last.index("USER") < last.index("ENTRYPOINT")


def test_what_is_copied_exists_and_is_let_through_by_the_list_of_what_the_build_may_see() -> None:
    seen = (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in seen
    for copy in of("COPY"):
        if not copy.startswith("--from"):
            for name in copy.split()[:-1]:
                assert (ROOT / name).exists()
                assert f"!{name.removeprefix('./')}" in seen


def test_the_check_of_health_passes_with_a_server_and_fails_without(tmp_path: Path) -> None:
    (text,) = of("HEALTHCHECK")
    _, *arguments = json.loads(text[text.index("[") :])
    with Server(tmp_path / "data") as server:
        there, gone = (
            [sys.executable, *(word.replace(":8080/", f":{port}/") for word in arguments)]
            for port in (server.port, free_port())
        )
        assert run(*there).returncode == 0
        assert run(*gone).returncode != 0


# --- compose ------------------------------------------------------------------------------------------------


def parsed(name: str, directory: Path) -> str:
    """What compose makes of a file, its anchors resolved; it fails when compose refuses it."""
    shutil.copytree(DOCKER, directory / "docker")
    shutil.copy(DOCKER / "cluster.env.example", directory / "docker" / "cluster.env")
    path = directory / "docker" / name
    # Compose 1.29, which Debian has, knows no "name:"; everything else it reads as version 2 does.
    path.write_text(re.sub(r"^name: .*\n", "", path.read_text(), count=1, flags=re.MULTILINE))
    done = run(need("docker-compose"), "--file", str(path), "config")
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("name", COMPOSE)
def test_compose_reads_the_file(name: str, tmp_path: Path) -> None:
    assert "services:" in parsed(name, tmp_path)


def test_compose_would_have_refused_a_word_that_it_does_not_know(tmp_path: Path) -> None:
    """The control of the test above."""
    done = tmp_path / "compose.yml"
    done.write_text("services:\n  x:\n    image: x:1\n    restarts: always\n")
    assert run(need("docker-compose"), "--file", str(done), "config").returncode != 0


def test_a_service_starts_when_what_it_needs_is_healthy(tmp_path: Path) -> None:
    text = parsed("compose.cluster.yml", tmp_path)
    assert text.count("condition: service_healthy") == 5
    assert text.count("healthcheck:") == 5


def test_the_database_syncs() -> None:
    text = (DOCKER / "compose.cluster.yml").read_text()
    for setting in ("fsync=on", "synchronous_commit=on", "full_page_writes=on"):
        assert f'"{setting}"' in text
    assert "=off" not in text


@pytest.mark.parametrize("name", COMPOSE)
def test_images_are_pinned_and_secrets_are_not_written_down(name: str) -> None:
    text = (DOCKER / name).read_text()
    for image in re.findall(r"^ +image: (\S+)", text, flags=re.MULTILINE):
        assert re.fullmatch(r"\w+:\d+\.\d+(\.\d+)?(-\w+)?", image), image
    assert re.findall(r"PASSWORD(?!_FILE: /run/secrets/)", text) == []
    assert "postgresql://" not in text


def test_the_secrets_are_made_once_and_are_what_the_program_and_the_database_take(tmp_path: Path) -> None:
    shutil.copytree(DOCKER, tmp_path / "docker")
    made = tmp_path / "docker" / "secrets"
    assert run(str(tmp_path / "docker" / "make-secrets.sh")).returncode == 0
    first = {path.name: path.read_text() for path in made.iterdir()}
    assert run(str(tmp_path / "docker" / "make-secrets.sh")).returncode == 0
    assert {path.name: path.read_text() for path in made.iterdir()} == first
    assert made.stat().st_mode & 0o777 == 0o700
    environment = {
        "POSTBACKD_STORE_FILE": str(made / "store"),
        "POSTBACKD_SECRET_KEY_FILE": str(made / "secret_key"),
    }
    settings = load_settings({}, environment)
    password = first["database_password"].strip()
    assert settings.store == f"postgresql://postbackd:{password}@postgres/postbackd"
    assert settings.secret_key is not None
    assert len(read_keys(settings.secret_key, "secret_key")) == 1


def test_what_holds_secrets_is_mounted_and_never_part_of_the_repository(tmp_path: Path) -> None:
    text = parsed("compose.cluster.yml", tmp_path)
    for name in ("store", "secret_key", "database_password"):
        assert f"secrets/{name}" in text
    assert "/secrets/" in (DOCKER / ".gitignore").read_text().splitlines()


@pytest.mark.parametrize("name", COMPOSE)
def test_what_is_mounted_from_the_project_exists(name: str) -> None:
    text = (DOCKER / name).read_text()
    for path in re.findall(r"^ +- (\.[^:]+):/", text, flags=re.MULTILINE):
        assert (DOCKER / path).exists() or path == "./tls", path


def test_nothing_but_a_front_end_is_published() -> None:
    for name in COMPOSE:
        for ports in re.findall(r"^ +ports: (\[.*\])", (DOCKER / name).read_text(), flags=re.MULTILINE):
            assert json.loads(ports) in (
                ["127.0.0.1:8080:8080", "127.0.0.1:8081:8081"],
                ["80:80", "443:443"],
            )


def test_nginx_accepts_the_upstream_of_the_cluster(tmp_path: Path) -> None:
    servers = [("127.0.0.1", free_port()), ("127.0.0.1", free_port())]
    ports = (free_port(), free_port())
    check("nginx", lay_nginx(tmp_path, servers, ports, upstream=DOCKER / "upstream.conf"))


def test_the_upstream_of_the_cluster_differs_from_the_shipped_one_in_its_servers_only() -> None:
    def directives(path: Path) -> list[str]:
        lines = [line.strip() for line in path.read_text().splitlines()]
        kept = [re.sub(r"^server \S+", "server", line) for line in lines if line and not line.startswith("#")]
        return sorted(kept)

    assert directives(DOCKER / "upstream.conf") == directives(DEPLOY / "nginx" / "upstream.conf")
