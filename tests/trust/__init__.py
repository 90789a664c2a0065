"""The trust campaign: tests that try to break the promises, each with a negative control that must fail.

``python -m tests.trust --size ci`` runs all of them.  The tests are the modules ``tNN_*``; ``registry`` says what a
test is, ``oracle`` decides what was lost, counted twice, invented or wrong, ``server`` starts and kills the real
program, and ``load`` sends it traffic.  Nothing here imports the program under test: it is judged from outside, by
its answers and by the bytes it leaves on the disk.
"""
