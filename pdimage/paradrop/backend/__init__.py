"""The daemon's parts: plans, the update queue, the configuration daemon and the HTTP face."""
