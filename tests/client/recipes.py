"""The recipes in ``clients/recipes``, run as a user runs them, and the servers that they are tried against."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.deploy.tools import miss

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "clients" / "recipes"

LANGUAGES = ("curl", "php", "node", "ruby", "go")

_NEEDS = {
    "curl": (("bash", "curl"), "bash curl"),
    "php": (("php",), "php-cli php-curl"),
    "node": (("node",), "nodejs"),
    "ruby": (("ruby",), "ruby"),
    "go": (("go",), "golang-go"),
}
"""Language -> its programs, and Debian's packages of them."""

_SIGN_ALL = {
    "php": "require getenv('RECIPE'); foreach (json_decode(stream_get_contents(STDIN), true) as $c) "
    "echo sign($c['secret'], $c['method'], $c['path'], $c['query'], $c['body'], $c['time']), \"\\n\";",
    "node": "const r = await import(process.env.RECIPE);"
    "for (const c of JSON.parse((await import('node:fs')).readFileSync(0)))"
    "  console.log(r.sign(c.secret, c.method, c.path, c.query, c.body, c.time));",
    "ruby": "require ENV['RECIPE']; require 'json'; JSON.parse($stdin.read).each do |c|"
    "  puts Postback.sign(c['secret'], c['method'], c['path'], c['query'], c['body'], c['time']) end",
    "curl": '. "$RECIPE"; while read -r secret && read -r method && read -r path && read -r query'
    ' && read -r body && read -r time; do sign "$secret" "$method" "$path" "$query" "$body" "$time"; done',
}
"""What reads cases of ``signatures.json`` and prints the recipe's signature of each on a line."""

_SIGNED = ("secret", "method", "path", "query", "body", "time")

_SIGN_ALL_GO = """
package main
import ("encoding/json"; "fmt"; "os")
func init() {
	if os.Getenv("SIGN_ALL") == "" { return }
	var cases []struct{ Secret, Method, Path, Query, Body, Time string }
	if err := json.NewDecoder(os.Stdin).Decode(&cases); err != nil { panic(err) }
	for _, c := range cases { fmt.Println(Sign(c.Secret, c.Method, c.Path, c.Query, c.Body, c.Time)) }
	os.Exit(0)
}
"""


@dataclass(frozen=True)
class Done:
    """How a recipe ended."""

    status: int
    said: str
    complained: str


class Recipes:
    """Runs each recipe with its own runtime; Go is compiled once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def send(self, language: str, url: str, *words: str, secret: str = "", trust: Path | None = None) -> Done:
        """One postback; ``trust``: the file of the authorities that the runtime believes."""
        env = {"POSTBACK_URL": url, **({"POSTBACK_SECRET": secret} if secret else {})}
        command = list(self._command(language))
        if trust is not None:
            env |= {
                "SSL_CERT_FILE": str(trust),
                "NODE_EXTRA_CA_CERTS": str(trust),
                "CURL_CA_BUNDLE": str(trust),
            }
            if language == "php":
                command[1:1] = ["-d", f"curl.cainfo={trust}"]
        return _run([*command, *words], env)

    def sign_all(self, language: str, cases: list[dict[str, str]]) -> list[str]:
        """The recipe's signatures of cases with ``secret``, ``method``, ``path``, ``query``, ``body``, ``time``."""
        text = json.dumps(cases)
        if language == "go":
            done = _run(self._command("go"), {"SIGN_ALL": "1"}, text)
        else:
            program, recipe = self._command(language)
            if language == "curl":
                text = "".join(f"{case[name]}\n" for case in cases for name in _SIGNED)
            option = {"curl": "-c", "php": "-r", "node": "-e", "ruby": "-e"}[language]
            more = ["--input-type=module"] if language == "node" else []
            done = _run([program, *more, option, _SIGN_ALL[language]], {"RECIPE": recipe}, text)
        assert done.status == 0, done.complained
        return done.said.split()

    def prepare(self, languages: Iterable[str]) -> None:
        """Compile what has to be compiled, before several are run side by side."""
        for language in languages:
            self._command(language)

    def _command(self, language: str) -> list[str]:
        program = need(language)
        if language == "go":
            return [str(self._compile(program))]
        name = {"curl": "sh", "php": "php", "node": "mjs", "ruby": "rb"}[language]
        return [program, str(RECIPES / f"postback.{name}")]

    def _compile(self, go: str) -> Path:
        target = self._directory / "postback"
        if not target.exists():
            sources = [self._directory / "postback.go", self._directory / "sign_all.go"]
            shutil.copy(RECIPES / "postback.go", sources[0])
            sources[1].write_text(_SIGN_ALL_GO)
            env = {"GOCACHE": str(self._directory / "cache"), "GO111MODULE": "off"}
            done = _run([go, "build", "-o", str(target), *map(str, sources)], env)
            assert done.status == 0, done.complained
        return target


def need(language: str) -> str:
    """The path of the program that runs a recipe: skips without it, or fails where everything has to be there."""
    programs, packages = _NEEDS[language]
    paths = [shutil.which(program) for program in programs]
    found = paths[0]
    if found is None or None in paths or (language == "php" and not _has_curl(found)):
        miss(f"{language} is not installed (apt install {packages})")
    return found


@functools.cache
def _has_curl(php: str) -> bool:
    return _run([php, "-r", "exit((int) !extension_loaded('curl'));"], {}).status == 0


def _run(command: list[str], env: Mapping[str, str], text: str = "") -> Done:
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": "/nonexistent",
        "LANG": "C.UTF-8",
        **env,
    }
    done = subprocess.run(command, env=environment, input=text, capture_output=True, text=True, timeout=60)
    return Done(done.returncode, done.stdout.strip(), done.stderr.strip())


# --- an endpoint that is busy at first --------------------------------------------------------------------------


class Busy:
    """Answers 503 to the first request of each path, then 200 as postbackd does; notes what it was asked."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.asked: list[tuple[str, str]] = []
        """Path with query, and signature, in the order of arrival."""

    def of(self, path: str) -> list[tuple[str, str]]:
        return [(target, signature) for target, signature in self.asked if target.startswith(f"{path}?")]


@contextmanager
def busy_at_first() -> Iterator[Busy]:
    """The endpoint on a loopback port, for as long as the context lasts."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            first = not busy.of(self.path.partition("?")[0])
            busy.asked.append((self.path, self.headers.get("X-Postback-Signature", "")))
            self.send_response(503 if first else 200)
            self.send_header("Retry-After", "0") if first else self.send_header(
                "Postbackd-Verdict", "accepted"
            )
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            """Nothing on standard error."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    busy = Busy(server.server_port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield busy
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
