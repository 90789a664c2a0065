"""A simulated market: visitors, networks and traffic sources that behave, and misbehave, as real ones do.

Everything here is a function of a seed and a span of time.  ``simulation.Market`` tells what happens, in order of time,
as the records of ``records``; ``truth.Truth`` keeps what really happened.  Nothing here knows a store, a socket or a
clock: whoever plays the records decides where they go.
"""
