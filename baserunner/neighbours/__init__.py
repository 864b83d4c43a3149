"""Who the agent talks to: Cloudly, the Supervisor, the host. One file each."""
