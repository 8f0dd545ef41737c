"""The registrant's side of task-daemon."""
