"""Parts of the status page: facts, words, HTML, and the ways by which it is served."""
