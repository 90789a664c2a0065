"""The admin role: the API and the dashboard, in a process of its own that ingest never waits for."""
