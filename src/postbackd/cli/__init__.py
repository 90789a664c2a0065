"""The command line: one command family a file.

A command reads its arguments, asks the store or a role and prints; it decides nothing that another door would
have to decide as well.  Errors are one line on standard error that names the next step, exit code 2 for usage and 1
for failure.
"""
