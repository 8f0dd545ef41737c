"""What a task goes through: registered, polled, told. No SQL, no HTTP, no threads and no clock of its own."""
