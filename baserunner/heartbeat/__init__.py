"""Report in, desired state out, again and again."""
