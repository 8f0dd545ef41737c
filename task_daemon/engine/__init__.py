"""Remembers tasks, times polls and deliveries, and hands them out. Knows no backend and no HTTP."""
