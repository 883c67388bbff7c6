"""Statistics of many runs: estimates, rankings and the verdict."""
