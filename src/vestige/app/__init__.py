"""What people use: the command line, batch runs and reports."""
