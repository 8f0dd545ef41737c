"""A local daemon that watches long work done elsewhere, survives anything, and calls back when it has ended."""

__version__ = "0.1.0"
