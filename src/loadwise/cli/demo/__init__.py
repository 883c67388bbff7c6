"""``loadwise demo``: real requests over real sockets to real processes, some of which fail."""
