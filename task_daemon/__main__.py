"""`python -m task_daemon`: the same as the command `task-daemon`."""

import sys

from task_daemon.main import main

sys.exit(main())
