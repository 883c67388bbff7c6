"""The command ``loadwise top``: what a status page shows, in a terminal."""
