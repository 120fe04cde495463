"""Many questions at once: how sure each answer must be, so that all of them together are."""

from collections.abc import Mapping


def holm(p_values: Mapping[str, float], *, level: float) -> frozenset[str]:
    """The hypotheses that are rejected, so that any true one is among them with probability at most `level`.

    Holds under every dependence of the p-values. Source: Holm 1979, A Simple Sequentially Rejective Multiple Test
    Procedure (Scandinavian Journal of Statistics 6).

    >>> sorted(holm({"a": 0.001, "b": 0.02, "c": 0.5}, level=0.05))
    ['a', 'b']
    """
    rejected: list[str] = []
    for name in sorted(p_values, key=lambda key: p_values[key]):
        if p_values[name] > level / (len(p_values) - len(rejected)):
            break
        rejected.append(name)
    return frozenset(rejected)
