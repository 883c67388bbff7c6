"""The command ``loadwise host``: what the processes of a host share, in a terminal."""
