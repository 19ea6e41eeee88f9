//! A pod goes, another one gets its address at once: nobody who means the old one ever talks to the new one.
//!
//! Seen red when the caller did not compare the identity that the server proved with the one it meant.
use anyhow::{Result, ensure};
use e2e::Mesh;
use e2e::harness::Suite;
use e2e::yaml::{Pod, all, namespace, service};

pub(crate) fn trials(suite: &mut Suite) {
    suite.trial("address_reuse::a_reused_address_never_reaches_the_wrong_pod", reuse);
}

const ADDRESS: &str = "10.244.2.200";

fn bob() -> String {
    Pod::new("shop", "bob", "node2").http(8080, "bob").ip(ADDRESS).quick_end().yaml()
}

fn mallory() -> String {
    Pod::new("shop", "mallory", "node2").http(8080, "mallory").ip(ADDRESS).quick_end().yaml()
}

fn reuse() -> Result<()> {
    let mesh = Mesh::up(&all(&[
        namespace("shop", true),
        Pod::new("shop", "client", "node1").yaml(),
        service("shop", "bob", "bob", 80, 8080),
        service("shop", "mallory", "mallory", 80, 8080),
    ]))?;
    reused(&mesh).map_err(|e| e.context(mesh.report()))
}

fn reused(mesh: &Mesh) -> Result<()> {
    mesh.apply("tenant.yaml", &bob())?;
    mesh.pod_ready("shop/bob", true)?;
    mesh.get_at_last("shop/client", "http://bob/")?;
    let to_bob = mesh.traffic("shop/client", "bob:80", &["--every", "1", "--limit", "500"])?;
    let to_mallory = mesh.traffic("shop/client", "mallory:80", &["--every", "1", "--limit", "500"])?;
    for _ in 0..4 {
        // One edit: the address has a new owner as soon as the old one is gone.
        mesh.apply("tenant.yaml", &mallory())?;
        mesh.pod_ready("shop/mallory", true)?;
        ensure!(mesh.ip("shop/mallory", false)?.to_string() == ADDRESS, "the address was not reused");
        ensure!(mesh.get_at_last("shop/client", "http://mallory/")? == "mallory");
        mesh.apply("tenant.yaml", &bob())?;
        mesh.pod_ready("shop/bob", true)?;
        ensure!(mesh.get_at_last("shop/client", "http://bob/")? == "bob");
    }
    for (meant, traffic) in [("bob", to_bob), ("mallory", to_mallory)] {
        let tally = traffic.finish()?;
        ensure!(tally.good > 0, "{meant} never answered: {tally:?}");
        let wrong: Vec<_> = tally.answers.iter().filter(|(text, _)| *text != meant).collect();
        ensure!(wrong.is_empty(), "{meant} was meant, and this answered: {wrong:?}");
    }
    Ok(())
}
