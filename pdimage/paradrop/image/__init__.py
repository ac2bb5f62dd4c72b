"""What an image does on the router beside running: its chutes come about, its containers are loaded, and what lasts is
kept with the release that it belongs to."""
