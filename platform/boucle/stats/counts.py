"""Counts against shares that they should have, with errors that hold at every look.

Among all requests so far, let `S_i` have gone to side `i`, which should get the share `theta_i`. A Dirichlet
distribution of the shares that they might have instead gives the likelihood ratio

    M = Gamma(K) / Gamma(K + n) * prod_i Gamma(a_i + S_i) / (Gamma(a_i) * theta_i ** S_i),    K = sum_i a_i,

a martingale that starts at 1 when the shares are right, and so ever reaches 1 / alpha with a probability of at most
alpha, exactly, for any number of looks (Ville's inequality). Source: Lindon and Malek 2022, Anytime-Valid Inference for
Multinomial Count Data (NeurIPS), theorem 1; for two sides it is Robbins' beta-binomial mixture of 1970.
"""

import math
from collections.abc import Callable, Sequence

_HALVINGS = 60
_CENT = 1e-9


def log_evidence(counts: Sequence[int], shares: Sequence[float], *, concentration: float) -> float:
    """Log of `M` above: how strongly the counts speak against the shares (above 0) or for them (below).

    Args:
        counts: Of each side, so far.
        shares: That each should have, in (0, 1); they sum to 1.
        concentration: `K`, with `a_i = K * theta_i`: how near to the right shares the wrong ones are expected. With
            two sides the standard deviation around `theta` is `sqrt(theta * (1 - theta) / (K + 1))`.

    Raises:
        ValueError: The shares are no shares, or not of these counts.
    """
    if len(counts) != len(shares) or min(shares) <= 0 or abs(sum(shares) - 1) > _CENT:
        raise ValueError(f"The shares {shares} must be above 0, sum to 1, and be one for each of {len(counts)} counts.")
    found = math.lgamma(concentration) - math.lgamma(concentration + sum(counts))
    for count, theta in zip(counts, shares, strict=True):
        prior = concentration * theta
        found += math.lgamma(prior + count) - math.lgamma(prior) - count * math.log(theta)
    return found


def always_valid_p(counts: Sequence[int], shares: Sequence[float], *, concentration: float) -> float:
    """The p-value of the shares: whoever looks after each request sees it at or below alpha, ever, at most that often.

    >>> round(always_valid_p([0, 0], [0.5, 0.5], concentration=100), 3)
    1.0
    """
    return math.exp(min(0.0, -log_evidence(counts, shares, concentration=concentration)))


def share_interval(hits: int, n: int, *, alpha: float, center: float, concentration: float) -> tuple[float, float]:
    """Low and high end of the share of hits; at every look the true share is inside with probability `1 - alpha`.

    The shares that the martingale above has not left behind, with one prior for all: Beta(K * center, K * (1 -
    center)). It is narrowest for shares near the center.

    Args:
        hits: So far.
        n: Hits and misses so far; without any the interval is [0, 1].
        alpha: Of both ends together, in (0, 1).
        center: Where the share is expected, in (0, 1).
        concentration: `K`: of how many earlier hits and misses this expectation is worth.
    """
    first, second = concentration * center, concentration * (1 - center)
    prior = math.lgamma(concentration) - math.lgamma(first) - math.lgamma(second)
    marginal = math.lgamma(first + hits) + math.lgamma(second + n - hits) - math.lgamma(concentration + n)
    limit = prior + marginal + math.log(alpha)

    def is_inside(share: float) -> bool:
        return limit <= hits * math.log(share) + (n - hits) * math.log1p(-share)

    best = hits / n if n else 0.5
    low = 0.0 if hits == 0 else _edge(is_inside, outside=0.0, inside=best)
    high = 1.0 if hits == n else _edge(is_inside, outside=1.0, inside=best)
    return low, high


def concentration_for(center: float, deviation: float) -> float:
    """How concentrated a Beta distribution around `center` is that has this standard deviation.

    >>> round(concentration_for(0.5, 0.05), 6)
    99.0
    """
    return center * (1 - center) / deviation**2 - 1


def _edge(is_inside: Callable[[float], bool], *, outside: float, inside: float) -> float:
    """Where a set ends between a point outside it and one inside, by halving; the point returned is outside."""
    for _ in range(_HALVINGS):
        middle = (outside + inside) / 2
        if 0 < middle < 1 and is_inside(middle):
            inside = middle
        else:
            outside = middle
    return outside
