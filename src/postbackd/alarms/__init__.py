"""Watches what goes wrong, and tells somebody: counts, decides (``core.alarms``), stores, sends notices."""
