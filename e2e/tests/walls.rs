//! A mesh keeps to itself: two run side by side with the same addresses, and of one that was killed nothing is left.
//!
//! Seen red when the machine did not end with `ambit up`, and when it did not answer to `ambit down`.
use anyhow::{Result, ensure};
use e2e::Mesh;
use e2e::command::{self, ambit};
use e2e::harness::Suite;
use e2e::process;
use e2e::until::until;
use e2e::yaml::{Pod, all, namespace};
use rustix::process::Signal;
use std::collections::BTreeSet;

pub(crate) fn trials(suite: &mut Suite) {
    suite.trial("walls::two_meshes_at_once_and_nothing_is_left_of_a_killed_one", side_by_side);
    suite.trial("walls::down_ends_everything", down);
}

fn world(text: &str) -> Result<Mesh> {
    Mesh::up(&all(&[
        namespace("shop", true),
        Pod::new("shop", "client", "node1").yaml(),
        Pod::new("shop", "server", "node2").http(8080, text).yaml(),
    ]))
}

/// The machine's own interfaces and mounts; a mesh must not add to them.
fn machine() -> Result<(BTreeSet<String>, usize)> {
    let links = std::fs::read_to_string("/proc/net/dev")?;
    let links = links.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect();
    Ok((links, std::fs::read_to_string("/proc/self/mountinfo")?.lines().count()))
}

fn side_by_side() -> Result<()> {
    let before = machine()?;
    let (one, two) = (world("one")?, world("two")?);
    ensure!(machine()? == before, "a mesh shows on the machine: {:?}, before {before:?}", machine()?);
    // The same addresses in both, and each its own world.
    let ip = one.ip("shop/server", false)?;
    ensure!(ip == two.ip("shop/server", false)?, "same YAML, same addresses");
    let url = format!("http://{ip}:8080/");
    ensure!(one.get_at_last("shop/client", &url)? == "one");
    ensure!(two.get_at_last("shop/client", &url)? == "two");

    let name = one.name().to_owned();
    let all = process::descendants(one.up_pid()?);
    ensure!(all.len() > 8, "a mesh is more processes than {all:?}");
    let traffic = two.traffic("shop/client", &format!("{ip}:8080"), &[])?;
    one.kill()?;
    until("every process of the killed mesh is gone", || {
        let left: Vec<_> = all.iter().filter(|p| p.runs()).collect();
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })?;
    ensure!(machine()? == before, "something is left on the machine: {:?}, before {before:?}", machine()?);
    let status = command::run(ambit().args(["status", "--name", &name]), command::LIMIT)?.bad()?;
    ensure!(status.contains("no mesh"), "{status}");
    // The files of the dead are found and removed by whoever asks for them.
    let again = command::run(ambit().args(["down", "--name", &name]), command::LIMIT)?.good()?;
    ensure!(again.contains("not running"), "{again}");

    ensure!(two.get("shop/client", &url)? == "two");
    traffic.finish()?.flawless(1)
}

fn down() -> Result<()> {
    let mesh = world("here")?;
    let all = process::descendants(mesh.up_pid()?);
    // A program that does not answer must not hold anything up.
    mesh.signal("ztunnel-node1", Signal::STOP)?;
    mesh.down()?;
    let left: Vec<_> = all.iter().filter(|p| p.runs()).collect();
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}
