"""Where the expected values come from."""

from __future__ import annotations

from types import MappingProxyType

__all__ = ["SOURCES"]

SOURCES = MappingProxyType(
    {
        "Azar 1999": "Y. Azar, A. Broder, A. Karlin, E. Upfal, “Balanced allocations”, SIAM "
        "Journal on Computing 29(1).",
        "Devroye 1986": "L. Devroye, “Non-Uniform Random Variate Generation”, Springer, chapter 5: "
        "gaps between random points.",
        "Eisenbud 2016": "D. Eisenbud et al., “Maglev: A Fast and Reliable Software Network Load "
        "Balancer”, NSDI. With the rule of weights of Envoy.",
        "Erlang 1917": "A. K. Erlang, “Solution of some problems in the theory of probabilities of "
        "significance in automatic telephone exchanges”.",
        "Gast 2017": "N. Gast, B. Van Houdt, “A refined mean field approximation”, Proceedings of "
        "the ACM on Measurement and Analysis of Computing Systems 1(2). Its correction of order "
        "1/n, worked out for distinct servers.",
        "Gonnet 1981": "G. Gonnet, “Expected length of the longest probe sequence in hash code "
        "searching”, Journal of the ACM 28(2). Evaluated exactly.",
        "Haight 1958": "F. Haight, “Two queues in parallel”, Biometrika 45.",
        "Karger 1997": "D. Karger et al., “Consistent hashing and random trees”, STOC.",
        "Khinchine 1932": "A. Khinchine, “Mathematical theory of a stationary queue”, "
        "Matematicheskii Sbornik 39.",
        "Kleinrock 1975": "L. Kleinrock, “Queueing Systems”, volume 1, Wiley, chapters 3 and 5.",
        "Lamping 2014": "J. Lamping, E. Veach, “A fast, minimal memory, consistent hash "
        "algorithm”, arXiv 1406.2294.",
        "Markov chain": "The model's Markov chain, solved state by state (`tests/proof/chain.py`).",
        "Mirrokni 2016": "V. Mirrokni, M. Thorup, M. Zadimoghaddam, “Consistent hashing with "
        "bounded loads”, arXiv 1608.01350.",
        "Mitzenmacher 2001": "M. Mitzenmacher, “The power of two choices in randomized load "
        "balancing”, IEEE Transactions on Parallel and Distributed Systems 12(10).",
        "Other code": "Simulations by other, independent code.",
        "Pollaczek 1930": "F. Pollaczek, “Über eine Aufgabe der Wahrscheinlichkeitstheorie”, "
        "Mathematische Zeitschrift 32.",
        "Resch 2015": "J. Resch, “New hashing algorithms for data storage”, Storage Developer "
        "Conference.",
        "Thaler 1996": "D. Thaler, C. Ravishankar, “A name-based mapping scheme for rendezvous”, "
        "University of Michigan.",
        "Wolff 1977": "R. Wolff, “An upper bound for multi-channel queues”, Journal of Applied "
        "Probability 14(4).",
    }
)
"""Citations, by their short names."""
