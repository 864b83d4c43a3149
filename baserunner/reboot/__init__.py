"""A reboot that an operator asked for, proven by the boot id."""
