"""``loadwise compare``: strategies side by side on a described fleet, in virtual time."""
