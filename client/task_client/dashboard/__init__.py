"""The dashboard: a page for the browser of the calling user, and the bridge between it and the daemon's socket."""
