"""Parts that the HTTP integrations share; nothing here does I/O but the transports."""
