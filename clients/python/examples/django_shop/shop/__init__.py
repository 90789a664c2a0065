"""A shop of four pages."""
