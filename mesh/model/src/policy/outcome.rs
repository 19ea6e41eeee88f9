//! Whether a condition holds, as far as it can be told.

/// Whether something holds. *Unknown* is for what this proxy cannot evaluate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It holds.
    Met,
    /// It does not.
    NotMet,
    /// It cannot be told here: counts as met in a deny policy and as not met in an allow policy.
    Unknown,
}

impl Outcome {
    pub(super) fn from_bool(met: bool) -> Self {
        if met { Self::Met } else { Self::NotMet }
    }

    /// Three-valued AND: one `NotMet` settles it, otherwise one `Unknown` does.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::NotMet, _) | (_, Self::NotMet) => Self::NotMet,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            _ => Self::Met,
        }
    }

    /// Three-valued OR: one `Met` settles it, otherwise one `Unknown` does.
    pub(super) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Met, _) | (_, Self::Met) => Self::Met,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            _ => Self::NotMet,
        }
    }

    /// What it is that something does not hold.
    pub(super) fn not(self) -> Self {
        match self {
            Self::Met => Self::NotMet,
            Self::NotMet => Self::Met,
            Self::Unknown => Self::Unknown,
        }
    }
}

/// AND of them all; with none of them it holds. One that does not hold settles it, and the others are not looked at.
pub(super) fn all(outcomes: impl Iterator<Item = Outcome>) -> Outcome {
    until(outcomes, Outcome::Met, Outcome::and, Outcome::NotMet)
}

/// OR of them all; with none of them it does not hold. One that holds settles it, and the others are not looked at.
pub(super) fn any(outcomes: impl Iterator<Item = Outcome>) -> Outcome {
    until(outcomes, Outcome::NotMet, Outcome::or, Outcome::Met)
}

fn until(
    outcomes: impl Iterator<Item = Outcome>,
    first: Outcome,
    join: fn(Outcome, Outcome) -> Outcome,
    settled: Outcome,
) -> Outcome {
    let mut so_far = first;
    for outcome in outcomes {
        so_far = join(so_far, outcome);
        if so_far == settled {
            break;
        }
    }
    so_far
}
