"""What the HTTP face is built of: the documented codes, encodings, decorators and resources."""
