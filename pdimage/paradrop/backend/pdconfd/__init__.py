"""The configuration daemon: UCI sections in, interfaces, daemons and firewall rules out."""
