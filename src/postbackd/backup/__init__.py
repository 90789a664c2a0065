"""Backups: one verified file of everything that is in the database, and the way back from it."""
