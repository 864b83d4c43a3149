"""What Cloudly counts, for Prometheus."""
