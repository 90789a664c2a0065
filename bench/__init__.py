"""The benchmark: ``python -m bench`` measures postbackd, nginx and a FastAPI service in one run, on one machine.

Every server is pinned to one core, whatever sends the load to another.  All of them get the same request lines, which
are written to a file before anything is timed.  ``docs/benchmarks.md`` explains the method.
"""
