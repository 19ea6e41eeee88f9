//! How a mesh on a cluster is: what `ambit status --kubernetes` prints, as tables or as JSON. Pure.
use crate::status::{Width, table};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Everything about the mesh of one cluster. The JSON form is stable for scripts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// What is wrong, one line each, with what to look at. Empty in a mesh that is well.
    pub problems: Vec<String>,
    /// Rights that are missing to see all of it: what they would show is not in here.
    pub missing_rights: Vec<String>,
    /// The control planes.
    pub control_planes: Vec<Replica>,
    /// The roots that proxies trust.
    pub roots: Vec<Root>,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The pods of users, and of the cluster.
    pub pods: Vec<Pod>,
    /// Policies, routes and entries, and Services that the control plane has something to say of.
    pub policies: Vec<Policy>,
    /// Gateways that are waypoints.
    pub waypoints: Vec<Waypoint>,
}

/// One replica of a control plane.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Replica {
    /// Its pod.
    pub name: String,
    /// Where it runs.
    pub node: String,
    /// The revision.
    pub revision: String,
    /// It serves.
    pub ready: bool,
    /// It writes status for all replicas of its revision.
    pub leader: bool,
}

/// A root certificate.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Root {
    /// Its subject.
    pub subject: String,
    /// When it ends, RFC 3339.
    pub ends: String,
    /// Whole days until then; negative when it has ended.
    pub days: i64,
}

/// A node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Its name.
    pub name: String,
    /// The kubelet says so.
    pub ready: bool,
    /// `ready`, `not ready` or `none`.
    pub agent: String,
    /// `ready`, `not ready` or `none`.
    pub ztunnel: String,
    /// Pods that are in the mesh.
    pub pods_in: usize,
    /// Pods that should be, and are not.
    pub pods_missing: usize,
}

/// A pod.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Where it runs.
    pub node: String,
    /// `yes`, `pending` (it should be, and no ztunnel serves it yet), `missing` (it should be, and is not) or `no`.
    pub mesh: String,
    /// Why.
    pub reason: String,
}

/// A policy, a route, or whatever else has conditions of the control plane.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Its kind.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `yes`, `no` or `unknown`: no control plane has said anything about it as it is now.
    pub accepted: String,
    /// What its conditions say, where that is more than that it is accepted.
    pub reason: String,
}

/// A waypoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Waypoint {
    /// The Gateway's namespace.
    pub namespace: String,
    /// The Gateway's name.
    pub name: String,
    /// Its class.
    pub class: String,
    /// `service`, `workload`, `all` or `none`.
    pub waypoint_for: String,
    /// The revision that it is for; empty is any.
    pub revision: String,
    /// The control plane says that it takes requests.
    pub programmed: bool,
    /// What the control plane says, where that is not that all is well.
    pub reason: String,
    /// Its pods that are ready, and all of them.
    pub pods: (usize, usize),
    /// Namespaces that name it.
    pub namespaces: Vec<String>,
    /// Services that use it, by their own label or their namespace's.
    pub services: Vec<String>,
    /// Routes whose parent is one of those services.
    pub routes: Vec<String>,
    /// Policies that target it, or one of those services.
    pub policies: Vec<String>,
}

impl ClusterStatus {
    /// Nothing is wrong, and everything could be seen.
    pub fn is_well(&self) -> bool {
        self.problems.is_empty() && self.missing_rights.is_empty()
    }

    /// For people.
    pub fn table(&self, width: Width) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = match (self.problems.len(), self.missing_rights.len()) {
            (0, 0) => writeln!(out, "the mesh of this cluster is well\n"),
            (0, _) => writeln!(out, "nothing is wrong in what you may see of the mesh of this cluster\n"),
            (1, _) => writeln!(out, "1 thing is wrong with the mesh of this cluster\n"),
            (many, _) => writeln!(out, "{many} things are wrong with the mesh of this cluster\n"),
        };
        table(&mut out, &["WRONG"], one_column(&self.problems), width);
        table(&mut out, &["NOT SEEN: YOU MAY NOT"], one_column(&self.missing_rights), width);
        let rows = self.control_planes.iter().map(|replica| {
            let Replica { name, node, revision, ready, leader } = replica;
            vec![name.clone(), node.clone(), revision.clone(), yes(*ready), yes(*leader)]
        });
        table(&mut out, &["CONTROL PLANE", "NODE", "REVISION", "READY", "LEADER"], rows.collect(), width);
        let rows = self.roots.iter().map(|root| vec![root.subject.clone(), root.ends.clone(), root.days.to_string()]);
        table(&mut out, &["ROOT CERTIFICATE", "ENDS", "DAYS"], rows.collect(), width);
        let rows = self.nodes.iter().map(|node| {
            let Node { name, ready, agent, ztunnel, pods_in, pods_missing } = node;
            let counts = [pods_in.to_string(), pods_missing.to_string()];
            [vec![name.clone(), yes(*ready), agent.clone(), ztunnel.clone()], counts.into()].concat()
        });
        let head = ["NODE", "READY", "AGENT", "ZTUNNEL", "PODS IN", "PODS MISSING"];
        table(&mut out, &head, rows.collect(), width);
        table(&mut out, &["POD", "NODE", "MESH", ""], self.pod_rows(width), width);
        let rows = self.policies.iter().map(|policy| {
            let Policy { kind, namespace, name, accepted, reason } = policy;
            vec![format!("{namespace}/{name}"), kind.clone(), accepted.clone(), reason.clone()]
        });
        table(&mut out, &["POLICY", "KIND", "ACCEPTED", ""], rows.collect(), width);
        table(&mut out, &WAYPOINT_HEAD, self.waypoints.iter().map(waypoint_row).collect(), width);
        out
    }

    /// Pods that are in or should be, one line each; of the others, those of a namespace with the same reason together.
    fn pod_rows(&self, width: Width) -> Vec<Vec<String>> {
        let row = |pod: &Pod| {
            let place = format!("{}/{}", pod.namespace, pod.name);
            vec![
                place,
                pod.node.clone(),
                pod.mesh.clone(),
                if pod.mesh == "yes" { String::new() } else { pod.reason.clone() },
            ]
        };
        if width == Width::Wide {
            return self.pods.iter().map(row).collect();
        }
        let (out, wanted): (Vec<&Pod>, Vec<&Pod>) = self.pods.iter().partition(|pod| pod.mesh == "no");
        let mut together: BTreeMap<(&str, &str), Vec<&Pod>> = BTreeMap::new();
        for pod in out {
            together.entry((&pod.namespace, &pod.reason)).or_default().push(pod);
        }
        let together = together.into_iter().map(|((namespace, reason), pods)| match pods.as_slice() {
            [one] => row(one),
            many => {
                vec![format!("{namespace}: {} pods", many.len()), String::new(), "no".to_owned(), reason.to_owned()]
            }
        });
        wanted.into_iter().map(row).chain(together).collect()
    }
}

/// Of [`waypoint_row`].
pub(crate) const WAYPOINT_HEAD: [&str; 6] = ["WAYPOINT", "FOR", "REVISION", "PROGRAMMED", "PODS", "ATTACHED"];

/// For people.
pub(crate) fn waypoint_row(waypoint: &Waypoint) -> Vec<String> {
    let (ready, all) = waypoint.pods;
    let counts = [
        ("namespace", waypoint.namespaces.len()),
        ("service", waypoint.services.len()),
        ("route", waypoint.routes.len()),
        ("policy", waypoint.policies.len()),
    ];
    let attached = counts.into_iter().filter(|(_, count)| *count > 0).map(|(what, count)| match (what, count) {
        (what, 1) => format!("1 {what}"),
        ("policy", count) => format!("{count} policies"),
        (what, count) => format!("{count} {what}s"),
    });
    let attached: Vec<String> = attached.collect();
    let mut last = if attached.is_empty() { "nothing".to_owned() } else { attached.join(", ") };
    if !waypoint.programmed && !waypoint.reason.is_empty() {
        let _ = write!(last, "; {}", waypoint.reason);
    }
    vec![
        format!("{}/{}", waypoint.namespace, waypoint.name),
        waypoint.waypoint_for.clone(),
        if waypoint.revision.is_empty() { "default".to_owned() } else { waypoint.revision.clone() },
        yes(waypoint.programmed),
        format!("{ready}/{all}"),
        last,
    ]
}

fn yes(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}

fn one_column(lines: &[String]) -> Vec<Vec<String>> {
    lines.iter().map(|line| vec![line.clone()]).collect()
}
