//! Medians, spreads, and ratios taken within a round. Pure.
use serde::Serialize;
use std::collections::BTreeMap;

/// Several measurements of one thing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// How many there were.
    pub(crate) count: usize,
}

/// The spread of some values; none of none.
pub(crate) fn spread(values: &[f64]) -> Option<Spread> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let count = sorted.len();
    let (min, max) = (*sorted.first()?, *sorted.last()?);
    let median =
        if count % 2 == 1 { sorted[count / 2] } else { f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]) };
    Some(Spread { median, min, max, count })
}

/// The value that `share` (0 to 1) of the ascending values do not exceed.
pub(crate) fn percentile(ascending: &[f64], share: f64) -> Option<f64> {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a length is a small natural"
    )]
    let rank = (ascending.len() as f64 * share).ceil() as usize;
    ascending.get(rank.saturating_sub(1)).copied()
}

/// The spread of `of[round] / to[round]` over the rounds that both have. A round whose divisor is zero has no ratio.
pub(crate) fn ratio(of: &BTreeMap<u32, f64>, to: &BTreeMap<u32, f64>) -> Option<Spread> {
    let ratios: Vec<f64> =
        of.iter().filter_map(|(round, a)| to.get(round).filter(|b| **b != 0.0).map(|b| a / b)).collect();
    spread(&ratios)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(median: f64, min: f64, max: f64, count: usize) -> Option<Spread> {
        Some(Spread { median, min, max, count })
    }

    #[test]
    fn spreads() {
        for (values, expected) in [
            (&[][..], None),
            (&[3.0], s(3.0, 3.0, 3.0, 1)),
            (&[9.0, 1.0, 2.0], s(2.0, 1.0, 9.0, 3)),
            (&[4.0, 1.0, 2.0, 8.0], s(3.0, 1.0, 8.0, 4)),
        ] {
            assert_eq!(spread(values), expected, "{values:?}");
        }
    }

    #[test]
    fn percentiles() {
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        for (values, share, expected) in [
            (&hundred[..], 0.5, Some(50.0)),
            (&hundred, 0.99, Some(99.0)),
            (&hundred, 1.0, Some(100.0)),
            (&hundred, 0.0, Some(1.0)),
            (&[7.0], 0.99, Some(7.0)),
            (&[], 0.5, None),
        ] {
            assert_eq!(percentile(values, share), expected, "{share}");
        }
    }

    #[test]
    fn ratios_pair_rounds() {
        let of = |values: &[(u32, f64)]| values.iter().copied().collect::<BTreeMap<_, _>>();
        let cases = [
            // Round 1 was slow for both: the ratio does not see it.
            (of(&[(0, 10.0), (1, 1.0)]), of(&[(0, 20.0), (1, 2.0)]), s(0.5, 0.5, 0.5, 2)),
            // Round 1 failed on one side, round 2 has no divisor.
            (of(&[(0, 3.0), (2, 1.0)]), of(&[(0, 1.0), (1, 1.0), (2, 0.0)]), s(3.0, 3.0, 3.0, 1)),
            (of(&[(0, 1.0)]), of(&[(1, 1.0)]), None),
        ];
        for (a, b, expected) in cases {
            assert_eq!(ratio(&a, &b), expected);
        }
    }
}
