"""What all parts of the runtime share: settings, chutes and their descriptors, configuration, utilities."""
