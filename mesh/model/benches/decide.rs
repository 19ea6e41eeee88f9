//! What one decision costs under many policies, looked at one by one and as a set: `cargo bench -p mesh-model`. It prints figures
//! and fails on none: they are the machine's as much as ours.

#![allow(clippy::print_stdout, reason = "it prints its figures")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use mesh_model::policy::{Action, Clause, Facts, Match, Policy, PolicySet, Rule, Scope, StringMatch, decide};

const POLICIES: usize = 1_000;
const DECISIONS: u32 = 20_000;

/// Lets one principal in, on one port.
fn policy(n: usize) -> Arc<Policy> {
    let principal = StringMatch::Exact(format!("cluster.local/ns/shop/sa/app-{n}").into());
    let is = |of: Match| Clause { matches: vec![of] };
    let rule = Rule {
        clauses: vec![
            is(Match { principals: vec![principal], ..Match::default() }),
            is(Match { destination_ports: vec![8080], ..Match::default() }),
        ],
    };
    Arc::new(Policy {
        name: format!("allow-{n}").into(),
        namespace: "shop".into(),
        scope: Scope::Namespace,
        action: Action::Allow,
        rules: vec![rule],
        dry_run: false,
    })
}

fn each(what: &str, mut once: impl FnMut()) {
    let start = Instant::now();
    for _ in 0..DECISIONS {
        once();
    }
    println!("{what}: {:.3} µs", start.elapsed().as_secs_f64() * 1e6 / f64::from(DECISIONS));
}

fn main() {
    let policies: Vec<_> = (0..POLICIES).map(policy).collect();
    let facts = |account: &str| Facts {
        source_ip: [10, 0, 0, 1].into(),
        source: Some(format!("spiffe://cluster.local/ns/shop/sa/{account}").parse().expect("an identity")),
        destination: ([10, 0, 0, 2], 8080).into(),
    };
    let (last, nobody) = (facts(&format!("app-{}", POLICIES - 1)), facts("nobody"));
    let start = Instant::now();
    let set = PolicySet::new(policies.clone());
    println!("a set of {POLICIES} policies, made: {:.0} µs", start.elapsed().as_secs_f64() * 1e6);
    for (who, facts) in [("the last one lets in", &last), ("none lets in", &nobody)] {
        each(&format!("a caller whom {who}, one by one"), || drop(black_box(decide(&policies, black_box(facts)))));
        each(&format!("a caller whom {who}, as a set"), || drop(black_box(set.decide(black_box(facts)))));
    }
}
