"""The outside world: one folder or file for each family of backends; `registry.py` knows them all."""
