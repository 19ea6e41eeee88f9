//! Everything at once, for a while: pods come and go, a policy flips, certificates live for seconds, clients reset their
//! connections, the control plane, the agents and the ztunnels are started anew. All the time requests are made of
//! which none may fail. Afterwards what the ztunnels hold is compared with what they held before.
//!
//! The first third is with replacements of ztunnels; then, once the last of them are warm, comes the baseline, and the
//! rest is on the same processes, so that what they lose little by little adds up.
use crate::mesh::{Mesh, NODES};
use crate::traffic::{Tally, Traffic};
use crate::until::{until, until_within};
use crate::yaml::{Pod, all, namespace};
use ambit::status::ProgramStatus;
use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// Lifetime of certificates: renewed at about half of it.
const LIFETIME: &str = "6s";
/// What a ztunnel may have more than before: a scrape under way, a pooled connection of a thread that had none.
const MORE_DESCRIPTORS: f64 = 2.0;
const MORE_POOLED: f64 = 2.0;
/// Memory moves with what an allocator keeps, and with the labels of pods that were there within the last minutes: in ten
/// minutes, by one or two of these.
const MORE_MEMORY: f64 = 4.0 * 1024.0 * 1024.0;
/// So long after it the metrics name no pod that is gone: they are looked at each minute, and keep last values for two.
const FORGOTTEN: Duration = Duration::from_secs(300);
/// A soak of this length does everything at least once, and waits for what takes minutes.
const LONG: Duration = Duration::from_secs(300);
/// A pod that is killed cannot close its connections; the other end finds out by PING, after 30 s at most.
const HALF_OPEN: Duration = Duration::from_secs(45);
/// What the names of pods that come and go begin with.
const VISITOR: &str = "visitor-";
/// Denies everybody.
const WALL: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: wall, namespace: shop}
spec:
  selector: {matchLabels: {app: guarded}}
  rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/nobody]}}]}]
";

/// What a ztunnel holds when nothing moves.
#[derive(Debug, Clone, PartialEq)]
struct Holds {
    descriptors: f64,
    memory: f64,
    pooled: f64,
    /// Label sets of traffic metrics.
    label_sets: usize,
    /// Entries of each table.
    tables: Vec<(&'static str, usize)>,
}

/// Soaks a mesh of its own for about this long; what was seen, in words.
///
/// # Errors
/// Something failed that should not, or a ztunnel holds more than before; all of it is told.
pub fn run(length: Duration) -> Result<String> {
    let mesh = Mesh::up_with(
        &all(&[
            namespace("shop", true),
            Pod::new("shop", "client", "node1").yaml(),
            Pod::new("shop", "server", "node2").http(8080, "here").peer().yaml(),
            Pod::new("shop", "guarded", "node2").http(8080, "guarded").yaml(),
            Pod::new("shop", "back", "node1").http(8080, "back").yaml(),
        ]),
        &["--secret-ttl", LIFETIME],
    )?;
    soaked(&mesh, length).map_err(|e| e.context(mesh.report()))
}

fn soaked(mesh: &Mesh, length: Duration) -> Result<String> {
    let mut rounds = Rounds { mesh, number: 0, done: BTreeMap::new(), wrong: Vec::new() };
    let first = rounds.churn(length / 3, true)? + rounds.churn(Duration::ZERO, false)?;
    let before = quiet(mesh)?;
    let programs = mesh.status()?.programs;
    let serials = certificates(mesh)?;
    let second = rounds.churn(length * 2 / 3, false)?;
    let mut after = quiet(mesh)?;
    let mut said = String::new();
    if length >= LONG {
        rounds.each_was_done(&programs, &serials)?;
        let forgotten = until_within(FORGOTTEN, "the metrics name no pod that is gone", || {
            NODES.iter().try_for_each(|node| {
                let named = mesh.metrics(node)?.samples.iter().filter(|sample| sample.names(VISITOR)).count();
                ensure!(named == 0, "{named} series of {node} do");
                Ok(())
            })
        });
        rounds.wrong.extend(forgotten.err().map(|error| format!("{error:#}")));
    }
    let same = until_within(HALF_OPEN, "the ztunnels hold no more than before", || {
        after = quiet(mesh)?;
        for (node, (before, after)) in NODES.iter().zip(before.iter().zip(&after)) {
            before.at_least(after).with_context(|| format!("ztunnel of {node}"))?;
        }
        Ok(())
    });
    rounds.wrong.extend(same.err().map(|error| format!("{error:#}")));
    // Writing to a String cannot fail.
    let _ = writeln!(said, "{} rounds; {} and then {} requests, of which none failed", rounds.number, first, second);
    let _ = writeln!(said, "besides: {:?}", rounds.done);
    for (node, (before, after)) in NODES.iter().zip(before.iter().zip(&after)) {
        let _ = writeln!(said, "ztunnel of {node} before: {before:?}\n                 after: {after:?}");
    }
    ensure!(rounds.wrong.is_empty(), "{said}{} things went wrong:\n{}", rounds.wrong.len(), rounds.wrong.join("\n"));
    Ok(said)
}

struct Rounds<'a> {
    mesh: &'a Mesh,
    number: usize,
    /// What was done, and how often, besides pods that come and go.
    done: BTreeMap<String, usize>,
    /// What should not have happened.
    wrong: Vec<String>,
}

impl Rounds<'_> {
    /// Rounds until `length` is over, at least three, under traffic; says how many requests were made.
    fn churn(&mut self, length: Duration, replace: bool) -> Result<u64> {
        let began = Instant::now();
        let mesh = self.mesh;
        let (server, back) = (mesh.ip("shop/server", false)?, mesh.ip("shop/back", false)?);
        mesh.get_at_last("shop/client", &format!("http://{server}:8080/"))?;
        mesh.get_at_last("shop/server", &format!("http://{back}:8080/"))?;
        let mut steady = vec![
            ("forth", mesh.traffic("shop/client", &format!("{server}:8080"), &["--every", "10"])?),
            ("back", mesh.traffic("shop/server", &format!("{back}:8080"), &["--every", "20"])?),
        ];
        if !replace {
            // It would end with the ztunnels it goes through.
            let kept = mesh.traffic("shop/client", &format!("{server}:9100"), &["--kept", "--every", "20"])?;
            steady.push(("on one connection", kept));
        }
        let until_round = self.number + 3;
        while began.elapsed() < length || self.number < until_round {
            if let Err(error) = self.round(replace) {
                self.wrong.push(format!("round {}: {error:#}", self.number));
            }
            self.number += 1;
        }
        let mut made = 0;
        for (name, traffic) in steady {
            let tally = finish(traffic, began.elapsed()).with_context(|| format!("the requests {name}"));
            match tally {
                Ok(tally) => made += tally.good,
                Err(error) => self.wrong.push(format!("{error:#}")),
            }
        }
        Ok(made)
    }

    fn did(&mut self, what: &str) {
        *self.done.entry(what.to_owned()).or_default() += 1;
    }

    /// That nothing was left out: programs were started anew since `programs`, certificates renewed since `serials`.
    fn each_was_done(&self, programs: &[ProgramStatus], serials: &BTreeSet<String>) -> Result<()> {
        for (what, least) in [("policy on and off", 10), ("resets", 10), ("ztunnel replaced", 2)] {
            let times = self.done.get(what).copied().unwrap_or_default();
            ensure!(times >= least, "{what}: {times} times, of {least} at least");
        }
        for name in ["istiod-lite", "node-agent-node1", "node-agent-node2"] {
            let before = programs.iter().find(|program| program.name == name).map(|program| program.restarts);
            let now = self.mesh.program(name)?.restarts;
            ensure!(before.is_some_and(|before| now > before), "{name} was not started anew: {before:?}, then {now}");
        }
        let now = certificates(self.mesh)?;
        ensure!(serials.is_disjoint(&now), "certificates that were not renewed: {serials:?}, then {now:?}");
        Ok(())
    }

    fn round(&mut self, replace: bool) -> Result<()> {
        let (mesh, number) = (self.mesh, self.number);
        let node = NODES[number % NODES.len()];
        let server = mesh.ip("shop/server", false)?;
        // On each node a pod comes, calls and is called.
        let file = format!("{VISITOR}{number}.yaml");
        let names = NODES.map(|node| format!("{VISITOR}{number}-{node}"));
        let pod = |(name, node): (&String, &str)| Pod::new("shop", name, node).http(8080, name).quick_end().yaml();
        mesh.apply(&file, &all(&names.iter().zip(NODES).map(pod).collect::<Vec<_>>()))?;
        for name in &names {
            let pod = format!("shop/{name}");
            let url = format!("http://{}:8080/", mesh.pod_ready(&pod, true)?.ips[0]);
            ensure!(mesh.get_at_last("shop/client", &url)? == *name, "somebody else answered");
            mesh.get_at_last(&pod, &format!("http://{server}:8080/"))?;
        }
        // A policy shuts others out, and lets them in again.
        let guarded = format!("http://{}:8080/", mesh.ip("shop/guarded", false)?);
        mesh.apply("wall.yaml", WALL)?;
        mesh.refused_at_last("shop/client", &guarded)?;
        mesh.remove("wall.yaml")?;
        mesh.get_at_last("shop/client", &guarded)?;
        self.did("policy on and off");
        // Clients break off what they began.
        mesh.exec("shop/client", &["ambit", "tool", "resets", &format!("{server}:9100")])?.good()?;
        self.did("resets");
        // A program is started anew.
        match (number / NODES.len()) % 3 {
            0 if replace => {
                let before = mesh.program(&format!("ztunnel-{node}"))?.pid;
                mesh.replace(&format!("ztunnel-{node}"))?;
                let now = mesh.program(&format!("ztunnel-{node}"))?.pid;
                ensure!(now != before, "the ztunnel of {node} is the same: {now:?}");
                self.did("ztunnel replaced");
            }
            0 => {}
            1 => {
                mesh.restart("istiod-lite", Signal::TERM)?;
                self.did("istiod-lite terminated");
            }
            _ => {
                mesh.restart(&format!("node-agent-{node}"), Signal::KILL)?;
                self.did("node agent killed");
            }
        }
        // The pods go.
        mesh.remove(&file)?;
        names.iter().try_for_each(|name| mesh.pod_gone(&format!("shop/{name}")))
    }
}

fn finish(traffic: Traffic, took: Duration) -> Result<Tally> {
    let tally = traffic.finish()?;
    // Several a second, however slow the machine is.
    tally.flawless(took.as_secs() * 5)?;
    Ok(tally)
}

/// The serial numbers of the ztunnels' certificates.
fn certificates(mesh: &Mesh) -> Result<BTreeSet<String>> {
    let mut serials = BTreeSet::new();
    for node in NODES {
        let dump = mesh.config_dump(node)?;
        let certificates = dump["certificates"].as_array().context("no certificates")?;
        serials.extend(certificates.iter().map(|certificate| certificate.to_string()));
    }
    Ok(serials)
}

/// What each ztunnel holds once nothing is open any more.
fn quiet(mesh: &Mesh) -> Result<Vec<Holds>> {
    NODES.iter().map(|node| until(&format!("nothing is open at {node}"), || holds(mesh, node))).collect()
}

fn holds(mesh: &Mesh, node: &str) -> Result<Holds> {
    let dump = mesh.config_dump(node)?;
    let length = |value: &serde_json::Value| value.as_array().map(Vec::len).or(value.as_object().map(|map| map.len()));
    let tables = ["workloads", "services", "policies", "certificates", "workloadState"]
        .map(|table| length(&dump[table]).map(|length| (table, length)).with_context(|| format!("no {table}")));
    let pods = dump["workloadState"].as_object().context("no workloadState")?;
    let connections = pods.values().map(|pod| &pod["connections"]);
    let open: usize = connections.flat_map(|of| [length(&of["inbound"]), length(&of["outbound"])]).flatten().sum();
    let metrics = mesh.metrics(node)?;
    let sockets = metrics.sum("istio_tcp_sockets_open", &[]);
    ensure!(open == 0 && sockets == 0.0, "{open} connections are listed, {sockets} sockets counted");
    // Not only its tables: certificates, too, are forgotten a moment later.
    ensure!(!dump.to_string().contains(VISITOR), "it still knows of a pod that is gone");
    // Each node has a pod that has called; the count is some seconds old at most.
    let pooled = metrics.sum("ambit_hbone_pooled_connections", &[]);
    ensure!(pooled > 0.0, "no pooled connection is counted");
    let program = mesh.program(&format!("ztunnel-{node}"))?;
    ensure!(program.draining.is_none(), "it shares its ports with {program:?}");
    Ok(Holds {
        descriptors: metrics.sum("process_open_fds", &[]),
        memory: metrics.sum("process_resident_memory_bytes", &[]),
        pooled,
        label_sets: metrics.samples.iter().filter(|s| s.name == "istio_tcp_connections_opened_total").count(),
        tables: tables.into_iter().collect::<Result<_>>()?,
    })
}

impl Holds {
    /// That it was at least as much as is held now.
    fn at_least(&self, now: &Self) -> Result<()> {
        ensure!(now.tables == self.tables, "tables {:?}, before {:?}", now.tables, self.tables);
        let pooled = (now.pooled, self.pooled);
        ensure!(now.pooled <= self.pooled + MORE_POOLED, "pooled connections now and before: {pooled:?}");
        let descriptors = (now.descriptors, self.descriptors);
        ensure!(now.descriptors <= self.descriptors + MORE_DESCRIPTORS, "descriptors now and before: {descriptors:?}");
        let memory = (now.memory, self.memory);
        ensure!(now.memory <= self.memory + MORE_MEMORY, "bytes of memory now and before: {memory:?}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds() -> Holds {
        let tables = vec![("workloads", 8), ("certificates", 2)];
        Holds { descriptors: 56.0, memory: 20.0 * 1024.0 * 1024.0, pooled: 4.0, label_sets: 10, tables }
    }

    #[test]
    fn what_is_left_behind_is_told() {
        let more = |change: fn(&mut Holds)| {
            let mut now = holds();
            change(&mut now);
            holds().at_least(&now).err().map(|error| error.to_string())
        };
        for (says, change) in [
            ("", (|_| {}) as fn(&mut Holds)),
            ("", |now| now.descriptors += MORE_DESCRIPTORS),
            ("descriptors", |now| now.descriptors += MORE_DESCRIPTORS + 1.0),
            ("", |now| now.pooled += MORE_POOLED),
            ("pooled", |now| now.pooled += MORE_POOLED + 1.0),
            ("", |now| now.memory += MORE_MEMORY),
            ("memory", |now| now.memory += MORE_MEMORY + 4096.0),
            ("workloads", |now| now.tables[0].1 += 1),
            ("certificates", |now| now.tables[1].1 -= 1),
            ("", |now| now.memory = 0.0),
        ] {
            let said = more(change).unwrap_or_default();
            assert!(said.contains(says) && said.is_empty() == says.is_empty(), "{says}: {said}");
        }
    }
}
