"""The chute store, the update objects and the queue that carries them out."""
