"""Tables of TOML files: the records that several kinds of file share, and how they are read."""
