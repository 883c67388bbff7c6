"""Rules of language models' APIs."""
