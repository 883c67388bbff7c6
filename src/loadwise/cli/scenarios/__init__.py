"""``loadwise scenarios``: the bundled scenarios, and what each teaches."""
