"""Section types, what each asks of the system, and the manager that brings the system there."""
