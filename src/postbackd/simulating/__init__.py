"""A simulated market played against a running server over its real interface, with the truth written beside.

``plan`` says what is simulated, ``agenda`` in which order, ``wording`` in which bytes; none of them knows a clock or a
socket.  ``sending`` and ``exchange`` do the sending.  ``truth_file`` is what is written, ``ledger`` what follows from
it, ``checking`` holds what a server says against it.
"""
