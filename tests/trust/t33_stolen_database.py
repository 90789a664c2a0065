"""T33: somebody has the database files, or a backup of them, and not the key.

Secrets of every kind are planted (account values in URLs, headers and bodies, signing secrets of webhooks, endpoint
keys, keys of click ids, the key of the hashes of personal data), used under traffic to targets that repeat in their
answers all that they were sent, and changed; the key is rotated as well.  Then every file but the key is searched for
each of them in every usual encoding, and the program is run on a copy without the key.
Controls: the same search in a database that holds them in clear, and the same thief with the key.
"""

from __future__ import annotations

import base64
import http.client
import http.server
import json
import shutil
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import Random
from urllib.parse import quote

import apsw
import msgspec

from postbackd.sealing import KEY_NAME, Sealer, find_sealer
from tests.trust.postgres import USER, Database, versions
from tests.trust.registry import Control, Figure, Result, Size, trust_test
from tests.trust.server import Catalog, Server, make_catalog, run_cli, wait_until

_LETTERS = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
Secrets = Mapping[str, bytes]


@trust_test("T33", "a stolen database without its key: nothing opens")
def run(size: Size, seed: int, work_dir: Path) -> Result:
    """No secret is in any file but the key, and no command gives one away without it."""
    data = work_dir / "data"
    planted, running_hits, files = _plant(data, Random(seed), size.pick(ci=6, nightly=60, release=300), {})
    kept = _open_kept(data, find_sealer(None, data, create=False))
    secrets = {**planted, **kept}
    hits = [*running_hits, *_search(_files_of(data), secrets)]
    stolen = work_dir / "stolen"
    shutil.copytree(data, stolen, ignore=lambda _, names: [name for name in names if name == KEY_NAME])
    given_away = _run_all(stolen, secrets)
    shutil.copy(data / KEY_NAME, stolen)
    with_key = _run_all(stolen, secrets)
    controls = (
        Control("the thief has the key too", bool(with_key), {"given away": len(with_key)}),
        _in_clear(work_dir / "clear", data, secrets),
    )
    figures: dict[str, Figure] = {
        "n": len(secrets), "files": files, "found": len(hits), "given away": len(given_away),
    }  # fmt: skip
    return Result(not hits and not given_away, figures, controls, "; ".join([*hits, *given_away][:5]))


@trust_test("T33PG", "the files of a PostgreSQL server without the key: nothing opens")
def run_postgres(size: Size, seed: int, work_dir: Path) -> Result:
    """The same in the files of the server, its write-ahead log included."""
    rng = Random(seed)
    key = base64.b64encode(rng.randbytes(32)).decode()
    with Database(versions()[-1]) as database:
        settings = {"POSTBACKD_STORE": database.address, "POSTBACKD_SECRET_KEY": key}
        planted, _, _ = _plant(work_dir / "data", rng, size.pick(ci=4, nightly=40, release=200), settings)
        hits = _search(_files_of(database.server.cluster), planted)
        database.server.execute(f"CREATE DATABASE clear OWNER {USER}")
        clear = {"POSTBACKD_STORE": database.address_of("clear")}
        network = json.loads(_must(run_cli(work_dir / "x", "network", "add", "Clear", "--json", env=clear)))
        found = _search(_files_of(database.server.cluster), {"endpoint key": network["key"].encode()})
        files = len(list(_files_of(database.server.cluster)))
    control = Control("a database without a key", bool(found), {"found": len(found)})
    figures: dict[str, Figure] = {"n": len(planted), "files": files, "found": len(hits)}
    return Result(not hits, figures, (control,), "; ".join(hits[:5]))


# --- what is planted ---------------------------------------------------------------------------------------------


def _plant(
    data: Path, rng: Random, count: int, settings: Mapping[str, str]
) -> tuple[dict[str, bytes], list[str], int]:
    """The secrets, what was found of them while the server ran, and how many files it had."""
    with _repeating_target() as port:
        env = {
            "POSTBACKD_DELIVER_RANGES": "127.0.0.1", "POSTBACKD_DELIVER_PORTS": str(port), **settings,
        }  # fmt: skip
        catalog = make_catalog(data, env=env)
        secrets = {"endpoint key": catalog.key.encode()}
        with Server(data, env=env) as server:
            for number in range(count):
                secrets |= _add_target(data, rng, number, port, env)
            secrets |= _change_some(data, rng, env)
            later = _must(run_cli(data, "network", "set", "Shop", "--new-key", "--json", env=env))
            secrets["new endpoint key"] = json.loads(later)["key"].encode()
            known = Catalog(secrets["new endpoint key"].decode(), catalog.slug)
            _use(server, known, data, count, env)
            if not settings:
                _must(run_cli(data, "secrets", "rotate", env=env))
                _must(run_cli(data, "keys", "rotate", env=env))
            files = list(_files_of(data))
            return secrets, _search(files, secrets), len(files)


def _must(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode:
        raise AssertionError(f"{done.args}: {done.stderr}")
    return done.stdout


def _secret(rng: Random) -> str:
    return "".join(rng.choices(_LETTERS, k=32))


def _add_target(data: Path, rng: Random, number: int, port: int, env: Mapping[str, str]) -> dict[str, bytes]:
    """A target of one of two kinds, and a rule that tells it of every conversion."""
    name, at = f"T{number}", f"http://127.0.0.1:{port}/{number}"
    if number % 2:
        made = json.loads(
            _must(run_cli(data, "target", "add", name, "--kind", "webhook", "--url", at, "--json", env=env))
        )
        secrets = {f"{name} signing secret": made["signing_secret"].removeprefix("whsec_").encode()}
    else:
        query, header = _secret(rng), _secret(rng)
        _must(run_cli(
            data, "target", "add", name, "--url", f"{at}?t={{account.Q}}&tx={{transaction_id}}",
            "--header", "X-Token: {account.H}", "--account", f"Q={query}", "--account", f"H={header}", env=env,
        ))  # fmt: skip
        secrets = {f"{name} in its URL": query.encode(), f"{name} in a header": header.encode()}
    _must(run_cli(data, "rule", "add", f"R{number}", "--source", "Ads", "--target", name, env=env))
    return secrets


def _change_some(data: Path, rng: Random, env: Mapping[str, str]) -> dict[str, bytes]:
    new = _secret(rng)
    _must(run_cli(data, "target", "set", "T0", "--account", f"Q={new}", env=env))
    return {"T0 after a change": new.encode()}


def _use(server: Server, catalog: Catalog, data: Path, count: int, env: Mapping[str, str]) -> None:
    """Conversions until every target has been told, and has answered with all that it was sent."""
    wait_until(lambda: _send(server, catalog, "first") == "accepted", 20, "the new endpoint key")
    for number in range(20):
        _send(server, catalog, f"tx{number}")

    def told() -> bool:
        rows = json.loads(_must(run_cli(data, "delivery", "list", "--limit", "1000", "--json", env=env)))
        tried = {row["target"] for row in rows if row["attempts"]}
        return len(tried) >= count

    wait_until(told, 60, "a delivery to every target")


def _send(server: Server, catalog: Catalog, transaction: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        connection.request("GET", f"/c/{catalog.slug}")
        location = connection.getresponse().headers["Location"]
        connection.close()
        click = location.partition("sub1=")[2]
        connection.request("GET", f"/p/{catalog.key}?click_id={click}&txid={transaction}&value=1")
        answer = connection.getresponse()
        body = answer.read()
        return str(json.loads(body)["verdict"]) if answer.status == 200 else ""
    finally:
        connection.close()


@contextmanager
def _repeating_target() -> Iterator[int]:
    """A target that refuses, and repeats all that it was sent: its answers are kept with the attempts."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._repeat(b"")

        def do_POST(self) -> None:
            self._repeat(self.rfile.read(int(self.headers["Content-Length"])))

        def _repeat(self, body: bytes) -> None:
            said = f"{self.path}\n{self.headers.get('X-Token', '')}\n".encode() + body
            self.send_response(400)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A deliverer that ends resets its connections."""

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def _open_kept(data: Path, sealer: Sealer) -> dict[str, bytes]:
    """The keys that the database holds, opened with the key."""
    with apsw.Connection(str(data / "postbackd.db")) as db:
        kept = {
            f"signing key {id_}": base64.b64decode(sealer.open(secret.decode(), "signing key"))
            for id_, secret in db.execute("SELECT id, secret FROM signing_keys WHERE length(secret) > 0")
        }
        value = db.execute("SELECT value FROM settings WHERE name = 'privacy_key'").get
    return {**kept, "privacy key": base64.b64decode(sealer.open(value.decode(), "privacy key"))}


# --- what is looked for ------------------------------------------------------------------------------------------


def _files_of(directory: Path) -> Iterator[Path]:
    return (path for path in sorted(directory.rglob("*")) if path.is_file() and path.name != KEY_NAME)


def _search(files: Iterable[Path], secrets: Secrets) -> list[str]:
    """Where a secret stands, in any usual form."""
    forms = {name: list(_forms(secret)) for name, secret in secrets.items()}
    hits = []
    for path in files:
        try:
            content = path.read_bytes()
        except FileNotFoundError:  # the server goes on meanwhile
            continue
        hits += [
            f"{name} in {path.name}"
            for name, written in forms.items()
            if any(form in content for form in written)
        ]
    return hits


def _forms(secret: bytes) -> Iterator[bytes]:
    yield secret
    yield secret[::-1]
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    yield quote(secret, safe="").encode()
    yield secret.decode("latin-1").encode("utf-16-le")
    for shift in range(
        3
    ):  # wherever it begins within what was encoded, without the characters that depend on that
        encoded = base64.b64encode(bytes(shift) + secret)[4 if shift else 0 : -4]
        yield encoded
        yield encoded.replace(b"+", b"-").replace(b"/", b"_")


_COMMANDS = (
    ("network", "list", "--json"),
    ("network", "show", "Shop", "--json"),
    ("target", "list", "--json"),
    ("target", "show", "T0", "--json"),
    ("export",),
    ("keys", "list", "--json"),
    ("secrets", "check", "--json"),
    ("delivery", "list", "--json"),
    ("settings", "--json"),
    ("doctor", "--json"),
)


def _run_all(data: Path, secrets: Secrets) -> list[str]:
    """What commands give away of the secrets."""
    given_away = []
    for command in _COMMANDS:
        done = run_cli(data, *command)
        said = (done.stdout + done.stderr).encode()
        given_away += [f"{name} by {' '.join(command)}" for name, secret in secrets.items() if secret in said]
    return given_away


def _in_clear(directory: Path, data: Path, secrets: Secrets) -> Control:
    """The same search in a database that holds what it should not: all of it has to be found."""
    shutil.copytree(data, directory)
    with apsw.Connection(str(directory / "postbackd.db")) as db:
        wanted = {name: secret for name, secret in secrets.items() if not name.startswith("T")}
        for number, secret in enumerate(wanted.values()):
            db.execute("INSERT INTO settings (name, value) VALUES (?, ?)", (f"clear {number}", secret))
        targets = [secret.decode() for name, secret in secrets.items() if name.startswith("T")]
        document = msgspec.json.encode(dict(enumerate(targets))).decode()
        db.execute("INSERT INTO settings (name, value) VALUES ('clear targets', ?)", (document,))
    hits = _search(_files_of(directory), secrets)
    found = {hit.rpartition(" in ")[0] for hit in hits}
    return Control("a database that holds them in clear", found == set(secrets), {"found": len(found)})
