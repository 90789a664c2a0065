"""Commands of the program, run in the process of the tests: a start of Python costs more than what most of them do.

For tests that ask a command beside a server, or make a catalog with it.  Where the process itself is tried (signals,
pipes, its environment, two at once), ``tests.trust.server.run_cli`` starts one.
"""

from __future__ import annotations

import io
import os
import subprocess
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from postbackd.cli.main import main
from tests.trust.server import clean_environment


def run_here(
    data_dir: Path, *arguments: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """``postbackd ARGUMENTS --data DIR``, as ``run_cli`` would; the exit status is the caller's business."""
    words = [*arguments, "--data", str(data_dir)]
    with _environment(clean_environment(env)):
        return _run(words)


def _run(words: list[str]) -> subprocess.CompletedProcess[str]:
    output, errors = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="") for _ in range(2))
    code: object = None
    with redirect_stdout(output), redirect_stderr(errors), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as a process of its own would; the tests make errors of them
        try:
            main(words)
        except SystemExit as leaving:
            code = leaving.code
    assert isinstance(code, int), code
    return subprocess.CompletedProcess(words, code, _text(output), _text(errors))


def _text(stream: io.TextIOWrapper) -> str:
    stream.seek(0)
    return stream.read()


@contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    """Let the command see this environment and no other."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(wanted)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
