"""Utilities: UCI files, addresses, files and programs, storage, restart after a power cycle."""
