"""The daemon's promises, proven on the user's own disk: a scratch daemon under load is killed at random moments, and afterwards
nothing may be lost, doubled or untold. The test suite runs the same code."""
