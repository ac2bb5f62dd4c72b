"""The HTTP face of the router: the documented ``/v1``, and ``/api/v1`` beside it."""
