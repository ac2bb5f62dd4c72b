"""The router's own web page."""
