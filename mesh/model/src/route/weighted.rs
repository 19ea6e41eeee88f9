//! One of several, by weight.

/// The one that a number stands for; None where the weights come to nothing.
pub(super) fn pick(weights: impl Iterator<Item = u32> + Clone, roll: u64) -> Option<usize> {
    let sum: u64 = weights.clone().map(u64::from).sum();
    let mut left = roll.checked_rem(sum)?;
    weights.map(u64::from).position(|weight| match left.checked_sub(weight) {
        Some(rest) => {
            left = rest;
            false
        }
        None => true,
    })
}
