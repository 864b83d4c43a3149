"""What operators ask for, written once: the command line and the API call the same functions."""
