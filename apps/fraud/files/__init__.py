"""`fraud score`: transactions of files and pipes, in the order of time."""
