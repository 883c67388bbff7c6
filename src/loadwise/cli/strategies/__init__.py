"""``loadwise strategies``: the strategies to choose from, and when to choose which."""
