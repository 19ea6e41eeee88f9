//! A mesh whose control plane is upstream's istiod on a Kubernetes API server, in istiod-lite's place; see
//! `e2e/upstream/README.md`.
use crate::harness::{need_program, skip};
use crate::mesh::Mesh;
use crate::process::{self, Process};
use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Names the folder that `e2e/upstream/build` has filled.
pub const FOLDER: &str = "AMBIT_TEST_UPSTREAM";
/// Names a folder of objects that only the API server is given, where there is also istiod-lite beside istiod, for waypoints alone.
const WAYPOINTS: &str = "AMBIT_TEST_WAYPOINTS_ONLY";
/// Names this program, for whom it is to start istiod-lite with.
const PROGRAM: &str = "AMBIT_TEST_PROGRAM";
/// What the line of a mesh's YAML begins with that says one of these. The programs of a mesh have settings of their own only.
const SAYS: &str = "# e2e: ";
/// The file with that line.
const BASE: &str = "base.yaml";
/// The first line of a mesh's YAML whose istiod has its feed for agentgateway, too.
pub const WITH_AGENTGATEWAY: &str = "# e2e: PILOT_ENABLE_AGENTGATEWAY=true\n";
/// Where ztunnels find it.
const CONTROL_PLANE: &str = "https://172.30.0.1:15012";
/// An empty Kubernetes fills itself first, and all of it is on this machine.
const START: Duration = Duration::from_secs(180);

/// Starts a mesh as [`Mesh::up_with`] does, with upstream's istiod.
///
/// # Errors
/// As [`Mesh::up`]; [`skip`] also if upstream's programs were not built.
pub fn up(yaml: &str, args: &[&str]) -> Result<Mesh> {
    start(yaml, args, None)
}

/// Starts such a mesh with istiod-lite beside istiod, for waypoints alone. `objects` is a folder of what only the API server is
/// given; what a kubelet would mount into waypoints is written there, too.
///
/// # Errors
/// As [`up`].
pub fn up_with_waypoints(yaml: &str, objects: &Path) -> Result<Mesh> {
    start(yaml, &[], Some(objects))
}

fn start(yaml: &str, args: &[&str], waypoints: Option<&Path>) -> Result<Mesh> {
    let folder = built()?;
    if std::env::var_os(ambit::EXE_OVERRIDE).is_some() {
        return Err(skip(&format!("{} is set, and only this very program puts istiod in place", ambit::EXE_OVERRIDE)));
    }
    need_program("etcd")?;
    let say = |name: &str, value: &Path| format!("{SAYS}{name}={}\n", value.display());
    let waypoints = waypoints.map(|objects| say(WAYPOINTS, objects)).unwrap_or_default();
    Mesh::up_within(START, &format!("{}{waypoints}{yaml}", say(FOLDER, &folder)), args)
}

/// Where upstream's programs are.
fn built() -> Result<PathBuf> {
    let Some(folder) = std::env::var_os(FOLDER).filter(|folder| !folder.is_empty()) else {
        return Err(skip(&format!("{FOLDER} names no folder of upstream's programs (e2e/upstream/README.md)")));
    };
    Path::new(&folder).canonicalize().with_context(|| format!("{FOLDER}: {}", folder.display()))
}

/// What the control plane of a mesh sends to a ztunnel that has nothing yet: addresses, then policies, by name.
///
/// # Errors
/// It sends nothing, or upstream's programs were not built.
pub fn sent(mesh: &Mesh) -> Result<[BTreeMap<String, Value>; 2]> {
    let dump = mesh.folder.file("sent");
    ask(mesh, &["dump", CONTROL_PLANE, &dump.display().to_string()])?;
    Ok([read(&dump.join("address.json"))?, read(&dump.join("authorization.json"))?])
}

/// What upstream's istiod sends of routes to an agentgateway that is the Gateway of this name in `istio-system`, by key. The
/// mesh's YAML begins with [`WITH_AGENTGATEWAY`].
///
/// # Errors
/// It sends nothing, or upstream's programs were not built.
pub fn routes(mesh: &Mesh, gateway: &str) -> Result<BTreeMap<String, Value>> {
    let file = mesh.folder.file("routes.json");
    ask(mesh, &["routes", CONTROL_PLANE, gateway, &file.display().to_string()])?;
    read(&file)
}

/// Runs the client of upstream's program where a ztunnel of node1 would ask, with its token.
fn ask(mesh: &Mesh, args: &[&str]) -> Result<()> {
    let program = built()?.join("upstream");
    let files = ambit::files_of(mesh.name())?;
    // Pods do not see the mesh's own files.
    for (from, to) in [("istiod/root-cert.pem", "root"), ("nodes/node1/token", "token")] {
        std::fs::copy(files.join(from), mesh.folder.file(to)).with_context(|| format!("cannot copy {from}"))?;
    }
    let root = format!("XDS_ROOT_CA={}", mesh.folder.file("root").display());
    let token = format!("AUTH_TOKEN={}", mesh.folder.file("token").display());
    let program = program.display().to_string();
    mesh.exec("kit/node1", &[&["env", &root, &token, &program], args].concat())?.good()?;
    Ok(())
}

fn read(file: &Path) -> Result<BTreeMap<String, Value>> {
    Ok(serde_json::from_slice(&std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?)?)
}

/// Becomes upstream's control plane if this process is `ambit istiod-lite` of such a mesh.
pub(crate) fn in_place_of_istiod_lite() {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_none_or(|program| program != "istiod-lite") {
        return;
    }
    let args: Vec<_> = args.collect();
    let base = args.first().and_then(|folder| std::fs::read_to_string(Path::new(folder).join(BASE)).ok());
    let said: BTreeMap<_, _> = base
        .iter()
        .flat_map(|text| text.lines().map_while(|line| line.strip_prefix(SAYS)))
        .filter_map(|said| said.split_once('='))
        .collect();
    let Some(folder) = said.get(FOLDER) else { return };
    let program = std::env::current_exe().unwrap_or_default();
    let error = Command::new(Path::new(folder).join("upstream")).args(args).envs(&said).env(PROGRAM, program).exec();
    // It is in the log that the mesh's report shows; the supervisor tries again.
    panic!("cannot start upstream's control plane: {error}");
}

/// The process of istiod itself.
///
/// # Errors
/// It does not run.
pub fn istiod(mesh: &Mesh) -> Result<Process> {
    let all = process::descendants(mesh.init()?);
    all.into_iter().find(|p| p.name == "istiod").context("istiod does not run")
}
