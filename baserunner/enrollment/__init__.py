"""Turning a join token into a node and a node token."""
