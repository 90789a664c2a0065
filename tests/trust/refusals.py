"""What a refusal must look like: one line on standard error, exit status 1."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.trust.server import Server, wait_until

REFUSED_S = 15
"""A refusal may take that long; a program that still runs then has not refused."""


@dataclass
class Findings:
    """Cases tried, and what was wrong with them."""

    cases: int = 0
    faults: list[str] = field(default_factory=list)
    lines: dict[str, str] = field(default_factory=dict)

    def expect(self, holds: bool, case: str, what: str) -> None:
        if not holds:
            self.faults.append(f"{case}: {what}")

    def expect_one_line(self, case: str, command: str, status: int | None, errors: str) -> None:
        """A refused command says one line and exits with 1."""
        lines = [line for line in errors.splitlines() if line.strip()]
        self.expect(status == 1, case, f"{command}: exit {status} instead of 1")
        self.expect(len(lines) == 1, case, f"{command}: {len(lines)} lines on standard error: {lines[-1:]}")
        self.lines[case] = lines[-1] if lines else ""

    def expect_refused_start(self, case: str, server: Server) -> None:
        """The server, which has not been started yet, does not start."""
        server.launch()
        try:
            wait_until(lambda: not server.running, REFUSED_S, "a refused start")
        except TimeoutError:
            state = "serves" if server.status("/healthz") else f"hangs: {server.stderr_tail(1)}"
            self.expect(False, case, f"{server.role}: no refusal; it {state}")
        else:
            self.expect_one_line(case, server.role, server.exit_status, server.stderr_tail(100))
        finally:
            server.kill()
