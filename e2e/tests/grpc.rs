//! `examples/grpc`, as its file says: calls of every kind through a waypoint, by method, by header and by weight; a denial is a
//! gRPC status.
//!
//! Seen red by the client while the example had a server that answered UNAVAILABLE: `grpc-status 14`.
use anyhow::{Context, Result, ensure};
use e2e::Mesh;
use e2e::harness::Suite;
use e2e::until::until;
use std::path::Path;
use std::time::Duration;

pub(crate) fn trials(suite: &mut Suite) {
    suite.trial("grpc::the_example_does_what_it_says", example);
}

fn example() -> Result<()> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/grpc/grpc.yaml");
    let mesh = Mesh::up(&std::fs::read_to_string(&file).with_context(|| format!("{}", file.display()))?)?;
    let rejected = mesh.status()?.rejected;
    ensure!(rejected.is_empty(), "{rejected:?}");
    let call = |arguments: &[&str]| mesh.exec("shop/client", &[&["ambit", "tool", "grpc-call"], arguments].concat());
    let says = |arguments: &[&str]| call(arguments)?.good();
    let asked_for = ["echo:80", "/shop.Echo/Say", "--header", "x-version: v2"];
    until("the route is followed", || {
        let said = says(&asked_for)?;
        ensure!(said == "v2 hi\n", "{said}");
        Ok(())
    })?;
    let said = says(&["echo:80", "/shop.Echo/Chat", "--message", "one", "--message", "two"])?;
    ensure!(said == "v2 one\nv2 two\n", "{said}");
    mesh.log_line("shop/waypoint-1", &["/shop.Echo/Chat", "route=", "chat"])?;
    // Many calls on one connection are split call by call.
    let count = |pod: &str| anyhow::Ok(mesh.log(pod)?.matches("/shop.Echo/Say: 1 messages").count());
    let counts = || anyhow::Ok([count("shop/echo-v1")?, count("shop/echo-v2")?]);
    let before = counts()?;
    let paced = ["ambit", "tool", "grpc-pace", "echo:80", "/shop.Echo/Say", "--connections", "1", "--seconds", "10"];
    let paced = [&paced[..], &["--messages", "1", "--pause", "0"]].concat();
    let paced = mesh.exec_within(Duration::from_secs(60), "shop/client", &paced)?.good()?;
    let asked: usize = paced.lines().next().and_then(|line| line.parse().ok()).context("no number")?;
    ensure!(paced.lines().nth(1) == Some("0"), "{paced}");
    // Fewer would mean little: one in ten is of v2.
    ensure!(asked >= 60, "only {asked} calls");
    let [old, new] = until("both versions have told of all calls", || {
        let now = counts()?;
        let told = [now[0].saturating_sub(before[0]), now[1].saturating_sub(before[1])];
        ensure!(told[0] + told[1] >= asked, "{told:?} of {asked} calls");
        Ok(told)
    })?;
    ensure!(old > new && new > 0, "{asked} calls: {old} of v1, {new} of v2");
    let denied = call(&["echo:80", "/shop.Admin/Say"])?;
    ensure!(denied.code == 1 && denied.stderr.contains("grpc-status 7"), "{}{}", denied.stdout, denied.stderr);
    mesh.log_line("shop/waypoint-1", &["/shop.Admin/Say", "shop/no-admin"]).map(drop)
}
