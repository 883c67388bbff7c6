"""What the HTTP integrations have in common; nothing here does I/O but the transports."""
