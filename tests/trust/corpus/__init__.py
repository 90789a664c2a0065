"""What the trust campaign sends: generated corpora, each a plain function of a seed.

Nothing here opens a socket or a database, except ``wire``, which carries raw bytes to a server and reads
answers.
"""
