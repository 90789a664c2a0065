"""What an operator does, for commands and the API alike: deliveries again, replays, tests of rules, erasures.

Nothing here prints or knows who asks; a failure is an error of ``catalog.errors``.
"""
