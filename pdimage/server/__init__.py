"""The build server: firmware on demand, by the documented API (layout and settings: README.rst here)."""
