"""The embedded engine: SQLite, timers and worker threads in one process."""
