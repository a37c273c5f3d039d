"""Statistics over seeds: the confidence interval of a mean, and paired differences."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

LEVEL = 0.95  # of confidence; tests use the significance level 1 - LEVEL


def interval(values: ArrayLike) -> float:
    """Half the width of the 95 % t-interval of a mean; NaN for fewer than two values."""
    values = np.asarray(values, dtype=float)
    n = len(values)
    if n < 2:
        return float("nan")
    return float(stats.t.ppf((1 + LEVEL) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n))


def differ(differences: ArrayLike, level: float = LEVEL) -> bool:
    """Whether the mean of paired differences (seeds,) is not zero: a two-sided t-test with the
    significance level 1 - `level`. Equal differences count as certain."""
    differences = np.asarray(differences, dtype=float)
    if np.ptp(differences) == 0:  # constant differences have no t
        return bool(differences[0] != 0)
    return bool(stats.ttest_1samp(differences, 0).pvalue < 1 - level)


def criterion_names(rows: pd.DataFrame) -> pd.Series:
    """The criterion of each row; "dataset criterion" if several data sets have it."""
    if "dataset" not in rows:
        return rows["criterion"]
    shared = rows.groupby("criterion")["dataset"].transform("nunique") > 1
    both = rows["dataset"] + " " + rows["criterion"]
    return rows["criterion"].where(~shared, both)


def paired(rows: pd.DataFrame, one: str, other: str, metric: str = "NMI", by: str = "row") -> dict:
    """Compare two settings, paired by seed; the value of a seed is the mean over criteria.

    `rows` has columns `by` (with the values `one` and `other`), seed and `metric`. Returns a
    dictionary: one, other, difference (mean of one - other), ± (half the width of its 95 %
    interval), p (of the paired t-test), seeds (their number).
    """
    per_seed = rows.groupby([by, "seed"])[metric].mean().unstack("seed")
    difference = (per_seed.loc[one] - per_seed.loc[other]).dropna()
    p = float(stats.ttest_1samp(difference, 0).pvalue) if difference.abs().max() > 0 else 1.0
    pair: dict = {"one": one, "other": other, "difference": float(difference.mean())}
    return pair | {"±": interval(difference), "p": p, "seeds": len(difference)}


def paired_within(
    rows: pd.DataFrame, pairs: Iterable[tuple[str, str]], within: str, metric: str = "NMI",
    by: str = "row",
) -> pd.DataFrame:  # fmt: skip
    """`paired` for each value of the column `within` and each pair of settings, as a data frame,
    `adjusted_for_all` of them. `within="criterion"` means `criterion_names`."""
    pairs = list(pairs)
    values = criterion_names(rows) if within == "criterion" else rows[within]
    table = [
        {within: value} | paired(group, one, other, metric, by)
        for value, group in rows.groupby(values, sort=False)
        for one, other in pairs
    ]
    return adjusted_for_all(pd.DataFrame(table))


def adjusted_for_all(differences: pd.DataFrame) -> pd.DataFrame:
    """Add the column `adjusted p`: p after the correction of Benjamini and Yekutieli for all rows.

    It holds for dependent tests too; its level is the false discovery rate. NaN if p is NaN.
    """
    known = differences["p"].notna()
    adjusted = stats.false_discovery_control(differences["p"][known], method="by")
    return differences.assign(**{"adjusted p": pd.Series(adjusted, differences.index[known])})
