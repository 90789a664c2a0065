"""``python -m postbackd`` is the command ``postbackd``."""

from postbackd.cli.main import main

main()
