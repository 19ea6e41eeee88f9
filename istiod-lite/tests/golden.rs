//! YAML in, decision out: each folder below `tests/golden/` is a case.
//!
//! | file | holds |
//! |---|---|
//! | `cluster.yaml` | Kubernetes objects, status included |
//! | `requests.yaml` | connections that ask to enter (may be left out) |
//! | `expected.yaml` | what was refused, what users are told, and each decision with its reason |
//! | `resources.txt` | what proxies were told; compared when it is there |
//!
//! The way is the real one, in one process: parse → translate → encode → decode → tables → decide.
//! `UPDATE_GOLDEN=1 cargo test -p istiod-lite --test golden` rewrites what is expected; read the diff.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use istiod_lite::cluster::Cluster;
use istiod_lite::source::folder::parse_file;
use istiod_lite::translate::condition::PolicyStatus;
use istiod_lite::translate::{Mesh, translate};
use mesh_model::policy::{Facts, decide};
use mesh_model::resource::Resource;
use mesh_model::tables::Tables;
use serde::{Deserialize, Serialize};

/// One connection.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request {
    /// SPIFFE id of the caller; left out is plaintext.
    identity: Option<String>,
    /// Address of the caller.
    #[serde(default = "some_address")]
    from: IpAddr,
    /// `namespace/pod`.
    to: String,
    port: u16,
    /// The pod's first address unless given.
    ip: Option<IpAddr>,
}

fn some_address() -> IpAddr {
    IpAddr::from([10, 244, 9, 9])
}

#[derive(Serialize)]
struct Expected {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rejected: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    status: Vec<Status>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    decisions: Vec<Outcome>,
}

#[derive(Serialize)]
struct Status {
    object: String,
    condition: String,
    message: String,
}

#[derive(Serialize)]
struct Outcome {
    request: String,
    outcome: String,
}

/// Trap 46: `policy/root-namespace-selector` and `peer_authentication/root-selector-selects-its-own-namespace`.
#[test]
fn every_case_decides_as_expected() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    let cases = cases(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"));
    assert!(cases.len() > 10, "the cases are where they should be");
    for case in cases {
        let (expected, resources) = run(&case);
        let check = |file: &str, found: &str, wrong: &mut Vec<String>| {
            let path = case.join(file);
            if update {
                fs::write(&path, found).unwrap();
            }
            let wanted = fs::read_to_string(&path).unwrap_or_default();
            if wanted != *found {
                wrong.push(format!("--- {}\n{}", path.display(), difference(&wanted, found)));
            }
        };
        check("expected.yaml", &expected, &mut wrong);
        if case.join("resources.txt").exists() {
            check("resources.txt", &resources, &mut wrong);
        }
    }
    assert!(wrong.is_empty(), "{}\nIf that is what you want: UPDATE_GOLDEN=1", wrong.join("\n"));
}

/// Every folder that holds a `cluster.yaml`.
fn cases(root: &Path) -> Vec<PathBuf> {
    let mut cases = Vec::new();
    for area in fs::read_dir(root).unwrap().map(|e| e.unwrap().path()) {
        let folders = fs::read_dir(area).unwrap().map(|e| e.unwrap().path());
        cases.extend(folders.filter(|folder| folder.join("cluster.yaml").exists()));
    }
    cases.sort();
    cases
}

fn run(case: &Path) -> (String, String) {
    let text = fs::read_to_string(case.join("cluster.yaml")).unwrap();
    let parsed = parse_file(Path::new("cluster.yaml"), &text);
    let mut cluster = Cluster::default();
    cluster.reset(parsed.objects.into_iter().map(|o| o.object));
    let translation = translate(&cluster, &Mesh::default());

    let mut tables = Tables::default();
    let mut resources = String::new();
    for sent in &translation.resources {
        let received = Resource::decode(sent.kind(), sent.encode()).unwrap();
        assert_eq!(received, *sent, "the wire form says the same");
        resources.push_str(&format!("{}\n{received:#?}\n\n", received.name()));
        tables.apply(received);
    }
    for (sent, audience) in &translation.for_waypoints {
        let received = Resource::decode(sent.kind(), sent.encode()).unwrap();
        assert_eq!(received, *sent, "the wire form says the same");
        resources.push_str(&format!("{} for {audience:?}\n{received:#?}\n\n", received.name()));
    }
    let requests: Vec<Request> = match fs::read_to_string(case.join("requests.yaml")) {
        Ok(text) => serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", case.display())),
        Err(_) => Vec::new(),
    };
    let expected = Expected {
        rejected: parsed.errors.iter().map(ToString::to_string).collect(),
        status: translation.statuses.iter().flat_map(status).collect(),
        decisions: requests.iter().map(|request| outcome(request, &tables)).collect(),
    };
    (serde_saphyr::to_string(&expected).unwrap(), resources)
}

fn status(status: &PolicyStatus) -> Vec<Status> {
    let describe = |c: &istiod_lite::translate::condition::Condition| Status {
        object: status.key.to_string(),
        condition: format!("{} {} {}", c.kind, if c.status { "True" } else { "False" }, c.reason),
        message: c.message.clone(),
    };
    status.conditions.iter().map(describe).collect()
}

fn outcome(request: &Request, tables: &Tables) -> Outcome {
    let workload =
        tables.workload(&format!("Kubernetes//Pod/{}", request.to)).unwrap_or_else(|| panic!("no pod {}", request.to));
    let facts = Facts {
        source_ip: request.from,
        source: request.identity.as_ref().map(|id| id.parse().unwrap()),
        destination: SocketAddr::new(request.ip.unwrap_or_else(|| workload.addresses[0]), request.port),
    };
    let covering = tables.policies_covering(workload);
    assert!(covering.missing.is_empty(), "workloads name only policies that are sent: {:?}", covering.missing);
    let decision = decide(&covering.policies, &facts);
    let who = request.identity.as_deref().unwrap_or("plaintext");
    Outcome {
        request: format!("{who} from {} to {} {}", request.from, request.to, facts.destination),
        outcome: format!("{}: {}", if decision.allowed { "ALLOW" } else { "DENY" }, decision.reason),
    }
}

/// The lines that differ.
fn difference(wanted: &str, found: &str) -> String {
    let (wanted, found): (Vec<_>, Vec<_>) = (wanted.lines().collect(), found.lines().collect());
    let mut lines = Vec::new();
    for i in 0..wanted.len().max(found.len()) {
        let (w, f) = (wanted.get(i).copied(), found.get(i).copied());
        if w != f {
            lines.extend(w.map(|w| format!("line {}: - {w}", i + 1)));
            lines.extend(f.map(|f| format!("line {}: + {f}", i + 1)));
        }
    }
    lines.join("\n")
}
