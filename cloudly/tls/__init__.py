"""TLS of Cloudly's own: the deployer's certificate, or one from a CA that Cloudly makes for its devices."""
