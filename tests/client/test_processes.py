"""What the end of a process, its forks and its full disk do to conversions: real processes, real kills."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from postbackd_client import Client
from postbackd_client.payload import decode
from postbackd_client.survey import survey
from tests.client.tracker import Tracker

_SOURCE = Path(__file__).parents[2] / "clients/python/src"
NOWHERE = "http://127.0.0.1:9/p/KEY"


_WARNINGS = ("-W", "error", "-W", "ignore:This process:DeprecationWarning")  # of a fork beside threads

CLIENT = "client = Client(url, spool=spool, exit_s=5.0, total_s=1.0)\n"


def shop(program: str, *words: str, client: str = CLIENT, wait: bool = True) -> subprocess.Popen[str]:
    """A program that has a ``client`` for the URL and the spool that are its first two words."""
    start = "import os, sys, threading\nfrom postbackd_client import Client, Limits, Schedule\n"
    start += f"url, spool = sys.argv[1:3]\n{client}"
    process = subprocess.Popen(
        [
            sys.executable,
            *_WARNINGS,
            "-c",
            start + textwrap.dedent(program),
            *words,
        ],
        env={**os.environ, "PYTHONPATH": str(_SOURCE)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    if wait:
        output, _ = process.communicate(timeout=30)
        assert process.returncode == 0
        process.told = output  # type: ignore[attr-defined]
    return process


def ids(tracker: Tracker) -> list[str]:
    """Transaction ids in the order in which they came, of single conversions and of batches."""
    found = []
    for one in tracker.asked:
        body = one.body.decode()
        if body.startswith("["):
            found += [decode(text + "}").transaction_id for text in body[1:-2].split("},")]
        else:
            found.append(body.partition("txid=")[2].partition("&")[0])
    return found


def waiting(spool: Path) -> int:
    return sum(one.waiting for one in survey(spool))


def test_the_end_of_the_interpreter_waits_for_what_is_left(tracker: Tracker, tmp_path: Path) -> None:
    shop("for n in range(5): client.conversion('abc', transaction_id=f'E-{n}')", tracker.url(), str(tmp_path))
    assert sorted(ids(tracker)) == [f"E-{n}" for n in range(5)]
    assert list(tmp_path.iterdir()) == []


def test_what_is_reported_at_the_very_end_of_the_interpreter_is_sent_by_the_next_process(
    tracker: Tracker, tmp_path: Path
) -> None:
    """After the client was closed: by an earlier exit handler, and by a destructor while modules are taken down."""
    program = """
        class Basket:
            def __del__(self, report=client.conversion):
                report("abc", transaction_id="E-destructor")
        client.conversion("abc", transaction_id="E-first")
        sys.modules["basket"] = basket = Basket()
    """
    early = "import atexit\natexit.register(lambda: client.conversion('abc', transaction_id='E-handler'))\n"
    shop(program, tracker.url(), str(tmp_path), client=early + CLIENT)
    assert waiting(tmp_path) == 2
    shop("assert client.drain(20)", tracker.url(), str(tmp_path))
    assert sorted(ids(tracker)) == ["E-destructor", "E-first", "E-handler"]


def test_the_end_waits_no_longer_than_it_may_and_the_rest_stays(tmp_path: Path) -> None:
    program = """
        client.conversion("abc", transaction_id="E-1")
        print(client.close(0.1))
    """
    told = shop(program, NOWHERE, str(tmp_path)).told  # type: ignore[attr-defined]
    assert told == "False\n"
    assert waiting(tmp_path) == 1


def test_what_was_reported_survives_kill_9_and_is_sent_by_the_next_process(
    tracker: Tracker, tmp_path: Path
) -> None:
    program = """
        for n in range(300): client.conversion("abc", transaction_id=f"K-{n}")
        print("reported", flush=True)
        sys.stdin.read()
    """
    victim = shop(program, NOWHERE, str(tmp_path), wait=False)
    assert victim.stdout
    assert victim.stdout.readline() == "reported\n"
    victim.kill()
    assert victim.wait() == -signal.SIGKILL
    victim.communicate()
    assert waiting(tmp_path) == 300
    heir = Client(tracker.url(), spool=tmp_path)
    tracker.otherwise = tracker.otherwise.__class__(500)
    assert not heir.drain(0.05, any_url=True)
    tracker.asked.clear()
    tracker.otherwise = tracker.otherwise.__class__(200)
    assert not heir.close(0)
    shop(
        "client.drain(20, any_url=True)",
        tracker.url("/p/KEY?c={click_id}&txid={transaction_id}"),
        str(tmp_path),
    )
    sent = [one.target.partition("txid=")[2] for one in tracker.asked]
    assert sorted(sent) == sorted(f"K-{n}" for n in range(300))
    assert list(tmp_path.iterdir()) == []


def test_children_of_a_fork_have_files_of_their_own_and_leave_the_parents_alone(
    tracker: Tracker, tmp_path: Path
) -> None:
    """As a server that loads the shop first and forks its workers then, with a report before and one in every child."""
    program = """
        client.conversion("abc", transaction_id="parent-1")
        children = []
        for number in range(3):
            child = os.fork()
            if not child:
                client.conversion("abc", transaction_id=f"child-{number}")
                sys.exit(0 if client.flush(20) and client.statistics().reported == 1 else 1)
            children.append(child)
        client.conversion("abc", transaction_id="parent-2")
        ended = [os.waitpid(child, 0)[1] for child in children]
        assert ended == [0, 0, 0], ended
        client.conversion("abc", transaction_id="parent-3")
        assert client.flush(20)
    """
    shop(program, tracker.url(), str(tmp_path))
    assert sorted(ids(tracker)) == ["child-0", "child-1", "child-2", "parent-1", "parent-2", "parent-3"]
    assert list(tmp_path.iterdir()) == []


FORKED = """
    import gc
    from pathlib import Path
    from postbackd_client import segment
    if url == "unguarded": segment._keep_for_ever = lambda connection: None
    kept = segment.Segment.create(Path(spool), "tracker")
    for n in range(50): kept.append(0, "{}")
    read, write = os.pipe()
    if not os.fork():
        os.close(write)
        os.read(read, 1)  # ends with the parent
        kept.forget()
        del kept
        gc.collect()  # as the interpreter does at its end
        os._exit(0)
    kept.append(0, "{}")
    os.kill(os.getpid(), 9)
"""


def test_what_a_killed_worker_has_left_is_sent_by_its_successor_before_anybody_reports(
    tracker: Tracker, tmp_path: Path
) -> None:
    """Workers of a server that has loaded the shop before it forks, while nobody buys anything."""
    program = """
        first = os.fork()
        if first == 0:
            Client(url, spool=spool, connect_s=1e-9).conversion("abc", transaction_id="K-1")
            os.kill(os.getpid(), 9)
        os.waitpid(first, 0)
        second = os.fork()
        if second == 0:
            progress = client._works._sender.progress
            with progress:
                progress.wait_for(lambda: client.statistics().sent, 20)
            os._exit(client.statistics().reported)
        assert os.waitpid(second, 0)[1] == 0
    """
    shop(program, tracker.url(), str(tmp_path))
    assert ids(tracker) == ["K-1"]


@pytest.mark.parametrize(("guard", "left"), [("guarded", 51), ("unguarded", 50)])
def test_a_child_that_outlives_its_parent_leaves_the_parents_log_alone(
    tmp_path: Path, guard: str, left: int
) -> None:
    """SQLite clears the log away when the child's copy is closed: unguarded, what came after the fork is lost."""
    tmp_path.joinpath("spool").mkdir()
    victim = shop(FORKED, guard, str(tmp_path / "spool"), client="", wait=False)
    assert victim.wait(30) == -signal.SIGKILL
    victim.communicate()  # ends when the child has
    assert waiting(tmp_path / "spool") == left


def test_forks_while_all_threads_report_hang_nobody(tracker: Tracker, tmp_path: Path) -> None:
    program = """
        ending = threading.Event()
        def report(name):
            number = 0
            while not ending.is_set():
                client.conversion("abc", transaction_id=f"{name}-{number}")
                number += 1
                ending.wait(0.0005)
        threads = [threading.Thread(target=report, args=(f"t{n}",)) for n in range(3)]
        for thread in threads: thread.start()
        for number in range(15):
            child = os.fork()
            if not child:
                client.conversion("abc", transaction_id=f"child-{number}")
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        ending.set()
        for thread in threads: thread.join()
        assert client.drain(20)
    """
    shop(program, tracker.url("/p/KEY?c={click_id}&txid={transaction_id}"), str(tmp_path))
    found = [one.target.partition("txid=")[2] for one in tracker.asked]
    assert {f"child-{number}" for number in range(15)} <= set(found)


def test_a_full_disk_loses_nothing_that_memory_can_hold(tracker: Tracker, tmp_path: Path) -> None:
    """A limit on the size of files makes SQLite fail in the middle of a write, as a full disk does."""
    program = """
        import resource
        client.conversion("abc", transaction_id="F-0")
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, resource.RLIM_INFINITY))
        for n in range(1, 200): client.conversion("abc", transaction_id=f"F-{n:0100d}")
        found = client.statistics()
        assert found.in_memory and not found.dropped, found
        assert not client.health().ok
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert client.flush(20)
        for n in range(200):
            if not client.health().problems: break
            threading.Event().wait(0.05)
        assert client.health().ok, client.health()
    """
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    shop(program, tracker.url("/p/KEY?c={click_id}&txid={transaction_id}"), str(tmp_path))
    sent = [one.target.partition("txid=")[2] for one in tracker.asked]
    assert set(sent) == {"F-0", *(f"F-{n:0100d}" for n in range(1, 200))}
