"""The link: how a provisioned router keeps in touch with its server, and how it was provisioned."""
