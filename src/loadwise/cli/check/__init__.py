"""``loadwise check``: what is wrong with a fleet file, or what it would build."""
