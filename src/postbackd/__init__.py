"""postbackd: records clicks, counts each conversion exactly once, and tells every sender what became of its request."""

__version__ = "0.1.0"
"""The one place of the version: the package metadata and ``postbackd version`` read it from here."""
