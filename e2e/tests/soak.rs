//! Pods, policies, certificates, programs and connections come and go at once; afterwards everything is as before:
//! descriptors, memory, tables, pools. The long form is a program: `cargo run --release -p e2e --bin soak -- --minutes 10`.
//!
//! Seen red when it looked before PING had found the connections of pods that were gone: they count.
use anyhow::Result;
use e2e::harness::Suite;
use e2e::soak;
use std::time::Duration;

pub(crate) fn trials(suite: &mut Suite) {
    suite.trial("soak::churn_leaves_nothing_behind_and_breaks_nothing", short);
}

/// Some rounds before the baseline, some after it.
const SHORT: Duration = Duration::from_secs(15);

fn short() -> Result<()> {
    soak::run(SHORT).map(drop)
}
