//! The second act: a waypoint reads requests, and so can route them, judge them and ask again.
use super::facts::Request;
use super::stage::{PATIENCE, STOREFRONT, Stage, URL, wait_for};
use super::view::{Row, View, row};
use anyhow::{Context, Result, bail, ensure};

const WAYPOINTED: &str = include_str!("../../../examples/demo/waypointed.yaml");
const ROUTE: &str = include_str!("../../../examples/demo/route.yaml");
const L7_POLICY: &str = include_str!("../../../examples/demo/l7-policy.yaml");
const PARCELS: &str = include_str!("../../../examples/demo/parcels.yaml");
const RETRY: &str = include_str!("../../../examples/demo/retry.yaml");

/// The pod of the Gateway.
const WAYPOINT: &str = "waypoint-1";
const LEDGER: &str = "http://orders.shop/ledger";
const PARCELS_URL: &str = "http://parcels.shop/";
/// Of so many orders one in five is the canary's: fewer than one or more than half of them, once in ten million runs.
const ORDERS: usize = 60;
const TRACKED: usize = 12;

pub(super) fn tell(stage: &Stage, view: &View, rows: &mut Vec<Row>) -> Result<()> {
    let step = view
        .begin("A Gateway is written: a waypoint comes into the way, and now it asks what only ztunnel asked before");
    stage.write("policy.yaml", L7_POLICY)?;
    stage.write("namespace.yaml", WAYPOINTED)?;
    let seen = wait_for(PATIENCE, "a request to pass the waypoint", || {
        // While the waypoint starts, nobody goes around it: there is a policy.
        let _ = stage.call("storefront", URL)?;
        Ok(requests(stage)?.into_iter().rfind(|r| r.source == STOREFRONT && r.reason.is_none()))
    })?;
    step.done(&format!("{} asked for {}, and the waypoint has read it", seen.source, seen.path));

    let step = view.begin("A route is written, live: one order in five goes to the new version");
    stage.write("route.yaml", ROUTE)?;
    wait_for(PATIENCE, "the route to be followed", || {
        let _ = stage.call("storefront", URL)?;
        Ok(requests(stage)?.pop().filter(|r| r.route.is_some()))
    })?;
    let mut counts = [0, 0];
    for _ in 0..ORDERS {
        let text = stage.call("storefront", URL)?.map_err(|why| anyhow::anyhow!("an order failed: {why}"))?;
        let which = ["(from orders-1)", "(from orders-2)"].iter().position(|mark| text.contains(mark));
        counts[which.context("an answer from nobody we know")?] += 1;
    }
    ensure!((1..=ORDERS / 2).contains(&counts[1]), "one in five was to go to the new version: {counts:?}");
    step.done(&format!("{} orders to v1, {} to v2", counts[0], counts[1]));
    rows.push(row("canary by weight", format!("{} : {} of {ORDERS}", counts[0], counts[1])));

    let step = view.begin("The storefront may ask for orders, and not for the ledger");
    let answer = stage.call("storefront", LEDGER)?;
    let Err(why) = answer else { bail!("the ledger should be denied, and was answered") };
    ensure!(why.contains("403"), "the ledger should be denied with 403: {why}");
    let denied = wait_for(PATIENCE, "the waypoint to tell of the denial", || {
        Ok(requests(stage)?.into_iter().rfind(|r| r.path == "/ledger" && r.reason.is_some()))
    })?;
    let (reason, error) = (denied.reason.unwrap_or_default(), denied.error.unwrap_or_default());
    ensure!(reason == "POLICY_DENIED", "the ledger was denied for another reason: {reason}: {error}");
    step.done("403 for /ledger, 200 for /");
    view.quote("waypoint", &[format!("GET {}: {reason}: {error}", denied.path)]);
    rows.push(row("request denied, with the reason", format!("403 {reason}")));

    let step = view.begin("A backend fails every second time, until a route says: ask again");
    stage.write("parcels.yaml", PARCELS)?;
    wait_for(PATIENCE, "the failing backend to answer", || Ok(stage.call("storefront", PARCELS_URL)?.ok()))?;
    let before = failures(stage)?;
    ensure!(before > 0, "without a route some of {TRACKED} calls should fail");
    stage.write("retry.yaml", RETRY)?;
    wait_for(PATIENCE, "the route to be followed", || {
        let _ = stage.call("storefront", PARCELS_URL)?;
        Ok(requests(stage)?.pop().filter(|r| r.route.is_some()))
    })?;
    let after = failures(stage)?;
    ensure!(after == 0, "with the route none of {TRACKED} calls should fail, and {after} did");
    step.done(&format!("{before} of {TRACKED} calls failed before, {after} after"));
    rows.push(row("retry saves a failing backend", format!("{before} of {TRACKED} failed, then {after}")));
    Ok(())
}

fn requests(stage: &Stage) -> Result<Vec<Request>> {
    // It has no log before it runs.
    let log = stage.pod_log(WAYPOINT).unwrap_or_default();
    Ok(log.lines().filter_map(Request::parse).collect())
}

/// How many calls of the failing backend fail.
fn failures(stage: &Stage) -> Result<usize> {
    let mut failed = 0;
    for _ in 0..TRACKED {
        failed += usize::from(stage.call("storefront", PARCELS_URL)?.is_err());
    }
    Ok(failed)
}
