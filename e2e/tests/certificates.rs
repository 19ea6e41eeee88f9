//! Certificates that live for seconds are renewed under traffic, and nobody notices.
//!
//! Seen red when certificates were renewed after they had expired.
use anyhow::{Context, Result, ensure};
use e2e::Mesh;
use e2e::harness::Suite;
use e2e::until::until_within;
use e2e::yaml::{Pod, all, namespace};
use std::collections::BTreeSet;
use std::time::Duration;

/// What certificates get; renewed at about half of it.
pub(crate) const LIFETIME: &str = "6s";
/// Certificates seen before the judgement.
const GENERATIONS: usize = 4;

pub(crate) fn trials(suite: &mut Suite) {
    suite.trial("certificates::renewed_every_few_seconds_without_a_failed_request", renewal);
}

fn renewal() -> Result<()> {
    let mesh = Mesh::up_with(&yaml(), &["--secret-ttl", LIFETIME])?;
    renewed(&mesh).map_err(|e| e.context(mesh.report()))
}

pub(crate) fn yaml() -> String {
    all(&[
        namespace("shop", true),
        Pod::new("shop", "client", "node1").yaml(),
        Pod::new("shop", "server", "node2").http(8080, "here").peer().yaml(),
    ])
}

pub(crate) fn renewed(mesh: &Mesh) -> Result<()> {
    let ip = mesh.ip("shop/server", false)?;
    mesh.get_at_last("shop/client", &format!("http://{ip}:8080/"))?;
    let new = mesh.traffic("shop/client", &format!("{ip}:8080"), &["--at-least", "200"])?;
    let kept = mesh.traffic("shop/client", &format!("{ip}:9100"), &["--kept", "--at-least", "200"])?;
    let mut seen = [BTreeSet::new(), BTreeSet::new()];
    let mut newcomers = 0;
    let limit = Duration::from_secs(60);
    until_within(limit, "several certificates of each side were in use", || {
        for (serials, (node, account)) in seen.iter_mut().zip([("node1", "client"), ("node2", "server")]) {
            serials.insert(serial(mesh, node, account)?);
        }
        let fewest = seen.iter().map(BTreeSet::len).min().unwrap_or_default();
        // Somebody new with each generation, so that handshakes are made with every one of them.
        if fewest > newcomers {
            newcomers += 1;
            let name = format!("newcomer-{newcomers}");
            mesh.apply(&format!("{name}.yaml"), &Pod::new("shop", &name, "node1").quick_end().yaml())?;
            mesh.pod_ready(&format!("shop/{name}"), true)?;
            mesh.get_at_last(&format!("shop/{name}"), &format!("http://{ip}:8080/"))?;
        }
        ensure!(fewest >= GENERATIONS, "{fewest} certificates so far");
        Ok(())
    })?;
    new.finish()?.flawless(200)?;
    kept.finish()?.flawless(200)
}

/// The serial number of a service account's certificate on a node, which must be as short-lived as asked for.
fn serial(mesh: &Mesh, node: &str, account: &str) -> Result<String> {
    let dump = mesh.config_dump(node)?;
    let identity = format!("spiffe://cluster.local/ns/shop/sa/{account}");
    let all = dump["certificates"].as_array().context("no certificates in the state")?;
    let own = all.iter().find(|c| c["identity"] == identity.as_str()).with_context(|| format!("none of {identity}"))?;
    let first = &own["certChain"][0];
    let when = |name: &str| first[name].as_str().and_then(seconds);
    let (from, to) = (when("validFrom"), when("expirationTime"));
    let lifetime = to.zip(from).map(|(to, from)| to - from).with_context(|| format!("{own}"))?;
    // Signed a little into the past, for clocks that differ.
    ensure!(lifetime < 300, "it lives for {lifetime} s");
    Ok(first["serialNumber"].to_string())
}

/// Seconds of a time in UTC such as `2026-11-23T23:59:59Z`, from some day in the past.
fn seconds(time: &str) -> Option<i64> {
    let number = |at: std::ops::Range<usize>| time.get(at)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    // Years from March on, so that the leap day is the last of its year.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day;
    Some(days * 86_400 + number(11..13)? * 3_600 + number(14..16)? * 60 + number(17..19)?)
}
