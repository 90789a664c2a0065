"""The catalog as people set it up: what an entry may hold, how it is written and changed, whoever asks for it.

The command line, catalog files and the API all come through here, so that each rule stands in one place.  Nothing here
opens a database, prints, or knows where a secret key is: what has to be sealed is handed to a function that seals it.
"""
