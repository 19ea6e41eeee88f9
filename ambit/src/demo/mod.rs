//! `ambit demo`: a story in which every sentence is checked against what really happened.
//!
//! | file | question |
//! |---|---|
//! | `stage` | the mesh it plays on: start it, edit it, call from its pods |
//! | `facts` | what access logs say (pure) |
//! | `requests` | its second act: what a waypoint adds |
//! | `view` | how it looks in a terminal |
mod facts;
mod requests;
mod stage;
mod view;

use crate::capture::{Capture, Seen};
use crate::cli::Demo;
use anyhow::{Context, Result, bail, ensure};
use facts::Access;
use stage::{PATIENCE, STOREFRONT, Stage, URL, wait_for};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use view::{Row, View, row};

const SHOP: &str = include_str!("../../../examples/demo/shop.yaml");
const NAMESPACE: &str = include_str!("../../../examples/demo/namespace.yaml");
const JOINED: &str = include_str!("../../../examples/demo/joined.yaml");
const POLICY: &str = include_str!("../../../examples/demo/policy.yaml");

/// What `orders` answers; it must not be readable on the wire.
const SECRET: &str = "three oranges for Ada";
const ORDERS: &str = "spiffe://cluster.local/ns/shop/sa/orders";
const VISITOR: &str = "spiffe://cluster.local/ns/shop/sa/visitor";
const CALLS: usize = 12;

/// Plays it. Exit code 0 only if everything claimed was observed.
pub(crate) fn run(args: &Demo) -> Result<ExitCode> {
    let view = View::new(args.no_color);
    let began = Instant::now();
    view.title("An ambient mesh on this machine, from nothing");
    let mut stage = Stage::new(args.keep)?;
    let told = tell(&mut stage, &view);
    if let Err(e) = &told {
        view.failed(&format!("{e:#}"));
        for (program, lines) in stage.last_words() {
            view.quote(&program, &lines);
        }
    }
    let kept = args.keep && told.is_ok();
    if !kept {
        stage.end()?;
    }
    match told {
        Ok(rows) => {
            view.table(&["CLAIM", "OBSERVED"], rows);
            view.next(kept, stage.folder(), began.elapsed());
            Ok(ExitCode::SUCCESS)
        }
        Err(_) => Ok(ExitCode::FAILURE),
    }
}

fn tell(stage: &mut Stage, view: &View) -> Result<Vec<Row>> {
    let mut rows = Vec::new();

    let step = view.begin("Two nodes, four pods, control plane, CA, node agents and ztunnels start");
    stage.start(&[("shop.yaml", SHOP), ("namespace.yaml", NAMESPACE)])?;
    let status = stage.wait_ready(Duration::from_secs(30))?;
    step.done(&format!("{} programs, {} pods ready", status.programs.len(), status.pods.len()));

    let step = view.begin("Before: the storefront asks orders, and we listen on the wire between the nodes");
    let seen = listen(stage, 1)?;
    ensure!(seen.count(SECRET) > 0, "the answer should be readable on the wire before joining, and was not: {seen:?}");
    ensure!(seen.hbone == 0, "nothing should use the tunnel's port before joining: {seen:?}");
    step.done(&format!("\"{SECRET}\" can be read in {} packets", seen.count(SECRET)));
    rows.push(row("plaintext before joining", format!("{} packets readable on the node link", seen.count(SECRET))));

    let step = view.begin("Join: one label on the namespace, while everything runs");
    let before: Vec<(String, String, u32)> = lives(stage)?;
    stage.write("namespace.yaml", JOINED)?;
    let joined = wait_for(PATIENCE, "all pods to be in the mesh", || {
        let status = stage.status()?;
        Ok(status.pods.iter().all(|p| p.mesh.state == "yes").then_some(status))
    })?;
    ensure!(lives(stage)? == before, "joining should restart nothing: before {before:?}, after {:?}", lives(stage)?);
    step.done(&format!("{} pods in the mesh, none restarted", joined.pods.len()));
    rows.push(row("joined live", format!("{} pods, 0 restarts", joined.pods.len())));

    let step = view.begin("After: the same question, the same wire");
    let seen = listen(stage, CALLS)?;
    ensure!(seen.lost == 0, "the capture lost packets and proves nothing: {seen:?}");
    ensure!(seen.count(SECRET) == 0, "the answer can still be read on the wire: {seen:?}");
    ensure!(seen.hbone > 0, "nothing went through the tunnel: {seen:?}");
    step.done(&format!("{CALLS} answers, not one readable; {} packets of mutual TLS instead", seen.hbone));
    rows.push(row(
        "no plaintext after joining",
        format!("0 of {} packets readable, {} HBONE", seen.packets, seen.hbone),
    ));

    let step = view.begin("Who called whom, as proven by certificates");
    let call = wait_for(PATIENCE, "the access log of ztunnel-node2 to tell of the call", || {
        Ok(access(stage)?.into_iter().rfind(|a| a.inbound() && a.source == STOREFRONT && a.error.is_none()))
    })?;
    ensure!(call.destination == ORDERS, "the call should have reached {ORDERS}: {call:?}");
    step.done(&format!("{} → {}", call.source, call.destination));
    rows.push(row("caller known by identity", format!("{STOREFRONT} → {ORDERS}")));

    let step = view.begin("The service address stands for both pods behind it");
    let counts = spread(stage)?;
    step.done(&format!("orders-1 answered {}, orders-2 answered {}", counts[0], counts[1]));
    rows.push(row("service spreads over its pods", format!("{} + {} answers", counts[0], counts[1])));

    let step = view.begin("A visitor asks orders too, and nothing stops it yet");
    ensure!(stage.call("visitor", URL)?.is_ok(), "the visitor should get through before there is a policy");
    step.done("answered");

    let step = view.begin("A policy is written, live: only the storefront may talk to orders");
    stage.write("policy.yaml", POLICY)?;
    // A call that is under way just then is cut off for another reason; the next one is refused.
    let denied = wait_for(PATIENCE, "the visitor to be refused by the policy", || {
        if stage.call("visitor", URL)?.is_ok() {
            return Ok(None);
        }
        Ok(access(stage)?.into_iter().rfind(|a| a.inbound() && a.source == VISITOR && a.refused()))
    })?;
    let reason = denied.error.clone().unwrap_or_default();
    let answer = stage.call("storefront", URL)?;
    ensure!(answer.is_ok(), "the storefront should still get through: {answer:?}");
    step.done("visitor refused, storefront still answered");
    view.quote("ztunnel-node2", &[format!("{}: {reason}", denied.source)]);
    rows.push(row("intruder denied, with the reason", reason));
    rows.push(row("rightful caller still served", "200 OK".into()));
    requests::tell(stage, view, &mut rows)?;
    Ok(rows)
}

/// The storefront asks `calls` times while the wire is captured.
fn listen(stage: &Stage, calls: usize) -> Result<Seen> {
    let capture = Capture::start(stage.name(), &[SECRET])?;
    for _ in 0..calls {
        let answer = stage.call("storefront", URL)?;
        let text = answer.map_err(|why| anyhow::anyhow!("the storefront got no answer: {why}"))?;
        ensure!(text.contains(SECRET), "the storefront got another answer than expected: {text}");
    }
    capture.finish()
}

/// Which pods live, and how often they were restarted.
fn lives(stage: &Stage) -> Result<Vec<(String, String, u32)>> {
    Ok(stage.status()?.pods.into_iter().map(|p| (p.name, p.uid, p.restarts)).collect())
}

fn access(stage: &Stage) -> Result<Vec<Access>> {
    Ok(stage.log("ztunnel-node2")?.lines().filter_map(Access::parse).collect())
}

fn spread(stage: &Stage) -> Result<[usize; 2]> {
    let mut counts = [0, 0];
    // With two fair choices, 40 calls miss one of them once in a trillion runs.
    for _ in 0..40 {
        let text = stage.call("storefront", URL)?.map_err(|why| anyhow::anyhow!("a call failed: {why}"))?;
        let which = ["(from orders-1)", "(from orders-2)"].iter().position(|mark| text.contains(mark));
        counts[which.context("an answer from nobody we know")?] += 1;
        if counts.iter().all(|n| *n >= 3) {
            return Ok(counts);
        }
    }
    bail!("the service should spread over both pods, and answered {counts:?}");
}
