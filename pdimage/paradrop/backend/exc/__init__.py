"""The modules that decide which plans an update of a chute needs, and what runs and aborts plans."""
