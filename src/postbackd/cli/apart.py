"""Runs a function in a process of its own, for a caller that is to stay small: what it imports goes with it."""

from __future__ import annotations

import logging
import os
import pickle
import sys
from collections.abc import Callable
from typing import TypeVar

import click

T = TypeVar("T")


def run_apart(work: Callable[[], T]) -> T:
    """The result of the work, which can be pickled.  Raises ``ClickException`` with the words of the one it raised.

    There must be no threads.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        _work(work, write)
    os.close(write)
    with os.fdopen(read, "rb") as answers:
        answer = answers.read()
    _, status = os.waitpid(child, 0)
    if not answer:
        raise click.ClickException(f"the start was interrupted (status {os.waitstatus_to_exitcode(status)})")
    result, refusal = pickle.loads(answer)  # noqa: S301 - our own child wrote it
    if refusal is not None:
        raise click.ClickException(refusal)
    done: T = result
    return done


def _work(work: Callable[[], object], write: int) -> None:
    """Never returns: what belongs to the parent, such as what is to be done at its exit, is not ours to do."""
    status = 1
    try:
        try:
            answer = pickle.dumps((work(), None))
        except click.ClickException as error:
            answer = pickle.dumps((None, error.format_message()))
        with os.fdopen(write, "wb") as answers:
            answers.write(answer)
        status = 0
    except Exception:
        logging.getLogger(__name__).exception("the start failed")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
