//! A connection through the mesh is a connection: any amount of bytes, any number of them, closed half by half, with
//! either side speaking first.
//!
//! Seen red: the gibibyte when one byte in a while was flipped; the thousand when the 301st connection was refused;
//! half-closes when the first end ended both; speaking first when plaintext was refused.
use anyhow::{Result, ensure};
use e2e::Mesh;
use e2e::harness::{SharedMesh, Suite};
use std::time::Duration;

pub(crate) fn trials(suite: &mut Suite, town: &SharedMesh) {
    suite.on(town, "streams::one_gibibyte_each_way_at_once_with_every_byte_checked", gibibyte);
    suite.on(town, "streams::a_thousand_connections_at_once", thousand);
    suite.on(town, "streams::either_side_closes_its_half_first", half_close);
    suite.on(town, "streams::the_server_speaks_first", server_first);
}

const LONG: Duration = Duration::from_secs(120);

fn peer(mesh: &Mesh) -> Result<String> {
    Ok(format!("{}:9100", mesh.ip("shop/web", false)?))
}

fn gibibyte(mesh: &Mesh) -> Result<()> {
    const GIB: &str = "1073741824";
    let command = ["ambit", "tool", "transfer", &peer(mesh)?, "--up", GIB, "--down", GIB];
    // The tool fails on any byte that is wrong, missing or too much, on either side.
    mesh.exec_within(LONG, "shop/client", &command)?.good()?;
    // It went through the mesh, and the mesh counted all of it.
    let line =
        mesh.log_line("ztunnel-node2", &["connection complete", "direction=\"inbound\"", "bytes_sent=1073741"])?;
    ensure!(line.contains("ns/shop/sa/client"), "{line}");
    Ok(())
}

fn thousand(mesh: &Mesh) -> Result<()> {
    mesh.exec_within(LONG, "shop/client", &["ambit", "tool", "hold", &peer(mesh)?, "--connections", "1000"])?.good()?;
    Ok(())
}

fn half_close(mesh: &Mesh) -> Result<()> {
    // The client's half first: the server answers only to that.
    mesh.exec("shop/client", &["ambit", "tool", "transfer", &peer(mesh)?, "--up", "300000"])?.good()?;
    // The server's half first: the client sends only then.
    mesh.exec("shop/client", &["ambit", "tool", "half-close", &peer(mesh)?, "--bytes", "123456"])?.good()?;
    mesh.log_line("shop/web", &["took 123456 bytes after closing our half"])?;
    Ok(())
}

fn server_first(mesh: &Mesh) -> Result<()> {
    let ip = mesh.ip("shop/web", false)?;
    for pod in ["shop/client", "shop/neighbour", "outside/client"] {
        let said = mesh.exec(pod, &["ambit", "tool", "first-line", &format!("{ip}:9000")])?.good()?;
        ensure!(said == "who is there\n", "{pod} heard {said:?}");
    }
    Ok(())
}
