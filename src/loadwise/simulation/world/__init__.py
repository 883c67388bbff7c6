"""Model of a fleet and its clients in virtual time."""
