"""``loadwise explain``: where the balancer of a fleet file would send a request, and why."""
