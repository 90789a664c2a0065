"""T15: forged targets (SSRF): spellings, embedded addresses, redirects, and names whose addresses alternate.

The judge is ``strace``: whatever the program says of itself, no ``connect`` may go anywhere but to the allowed range.
Control: the same with everything allowed, which must connect to the loopback.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from ipaddress import ip_address, ip_network
from pathlib import Path

from tests.trust.corpus.forged_urls import SAFE_RANGE
from tests.trust.registry import Control, Result, Size, need_tools, trust_test
from tests.trust.server import clean_environment

_CONNECT = re.compile(
    r'connect\(\d+, \{sa_family=(AF_INET6?), .*?(?:inet_addr\("|inet_pton\(AF_INET6, ")([0-9a-fA-F:.]+)"'
)
_ANY_INET = re.compile(r"connect\(\d+, \{sa_family=AF_INET")
_SAFE = ip_network(SAFE_RANGE)


@trust_test("T15", "forged targets: spellings, v4 in v6, redirects, names that alternate; judged by strace")
def run(size: Size, seed: int, work_dir: Path) -> Result:
    """0 connects outside of the allowed range."""
    need_tools("strace")
    rebinds = size.pick(ci=3_000, nightly=100_000, release=100_000)
    heard, allowed, forbidden = _watch(work_dir, "guarded", rebinds, seed)
    _, _, fallen = _watch(work_dir, "open", 200, seed)
    figures = {
        "n": heard["urls"] + heard["rebinds"],
        "urls": heard["urls"],
        "rebinds": heard["rebinds"],
        "forbidden connects": forbidden.total(),
        "allowed connects": allowed,
        "answered": heard["answered"],
        "redirects not followed": heard["redirects"],
        "refused": heard["refused"],
    }
    passed = not forbidden and heard["urls"] >= 500 and allowed >= heard["answered"] > rebinds // 4
    control = Control("everything allowed", fallen.total() > 0, {"forbidden connects": fallen.total()})
    note = ", ".join(f"{address} {times} times" for address, times in forbidden.most_common(10))
    return Result(passed, figures, (control,), note)


def _watch(work_dir: Path, mode: str, rebinds: int, seed: int) -> tuple[dict[str, int], int, Counter[str]]:
    """What the child heard, its connects to the allowed range, and those to anywhere else."""
    trace = work_dir / f"{mode}.trace"
    child = [sys.executable, "-m", "tests.trust.corpus.forged_urls", mode, str(rebinds), str(seed)]
    watched = ["strace", "-f", "--seccomp-bpf", "-e", "trace=connect", "-o", str(trace), *child]
    root = Path(__file__).parents[2]
    environment = clean_environment()
    environment["PYTHONPATH"] = f"{root}:{environment['PYTHONPATH']}"
    done = subprocess.run(watched, env=environment, cwd=root, capture_output=True, text=True, timeout=3600)
    if done.returncode:
        raise RuntimeError(f"the watched process failed: {done.stderr.strip()[-2000:]}")
    allowed, forbidden = 0, Counter[str]()
    with trace.open() as lines:
        for line in lines:
            if not _ANY_INET.search(line):
                continue
            found = _CONNECT.search(line)
            address = found[2] if found else line.strip()
            if found and ip_address(address) in _SAFE:
                allowed += 1
            else:
                forbidden[address] += 1
    heard: dict[str, int] = json.loads(done.stdout)
    return heard, allowed, forbidden
