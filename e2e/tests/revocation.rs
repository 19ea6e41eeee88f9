//! A certificate is taken back while connections are open (`CRL_PATH`): they end at once, at whichever of their ends the
//! certificate is, everybody else's go on, and nobody gets in with it again.
use anyhow::{Context, Result, anyhow, ensure};
use e2e::Mesh;
use e2e::harness::Suite;
use e2e::until::until;
use e2e::yaml::{Pod, all, namespace};
use rcgen::{CertificateRevocationListParams, Issuer, KeyPair, RevokedCertParams, SerialNumber, date_time_ymd};
use rustix::process::Signal;
use std::path::Path;
use std::time::Duration;

pub(crate) fn trials(suite: &mut Suite) {
    suite.trial("revocation::open_connections_of_a_revoked_peer_are_cut_at_either_end", revoked_later);
    suite.trial("revocation::a_missing_list_is_said", missing_list);
}

/// A ztunnel that has no list lets nobody in, and is not ready; the status says why, as `/healthz/ready` does.
fn missing_list() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let list = directory.path().join("ca-crl.pem");
    let ca = Issuer::new(rcgen::CertificateParams::default(), KeyPair::generate()?);
    write(&list, &revoke(&ca, &[])?)?;
    let crl = format!("ztunnel-node1:CRL_PATH={}", list.display());
    let mesh =
        Mesh::up_with(&all(&[namespace("shop", true), Pod::new("shop", "alice", "node1").yaml()]), &["--set", &crl])?;
    let said = || {
        std::fs::remove_file(&list)?;
        mesh.signal("ztunnel-node1", Signal::KILL)?;
        until("the status says why it is not ready", || {
            let program = mesh.program("ztunnel-node1")?;
            let why = program.not_ready.context("it says nothing")?;
            ensure!(
                !program.ready && why.contains("revocation lists") && why.contains("ca-crl.pem cannot be read"),
                "{why}"
            );
            Ok(())
        })?;
        write(&list, &revoke(&ca, &[])?)?;
        until("it is ready, and has nothing to say", || {
            let program = mesh.program("ztunnel-node1")?;
            ensure!(program.ready && program.not_ready.is_none(), "{program:?}");
            Ok(())
        })
    };
    said().map_err(|e: anyhow::Error| e.context(mesh.report()))
}

/// The list is looked at every 2 s.
const NOTICED: Duration = Duration::from_secs(20);

fn revoked_later() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let list = directory.path().join("ca-crl.pem");
    // The mesh's CA is not there yet: a list of another one, which says nothing of ours.
    let key = KeyPair::generate()?;
    let mut other = rcgen::CertificateParams::default();
    other.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    other.distinguished_name.push(rcgen::DnType::OrganizationName, "somebody else");
    write(&list, &revoke(&Issuer::new(other, key), &[])?)?;
    let mesh = Mesh::up_with(
        &all(&[
            namespace("shop", true),
            Pod::new("shop", "alice", "node1").yaml(),
            Pod::new("shop", "carol", "node1").yaml(),
            Pod::new("shop", "bob", "node2").http(8080, "bob").peer().yaml(),
            Pod::new("shop", "dave", "node2").http(8080, "dave").peer().yaml(),
        ]),
        &["--set", &format!("ztunnel:CRL_PATH={}", list.display())],
    )?;
    cut(&mesh, &list).map_err(|e| e.context(mesh.report()))
}

fn cut(mesh: &Mesh, list: &Path) -> Result<()> {
    let key = KeyPair::from_pem(&mesh.ca_file("ca-key.pem")?)?;
    let ca = Issuer::from_ca_cert_pem(&mesh.ca_file("ca-cert.pem")?, key)?;
    let (bob, dave) = (mesh.ip("shop/bob", false)?, mesh.ip("shop/dave", false)?);
    for (pod, ip) in [("shop/alice", bob), ("shop/carol", bob), ("shop/carol", dave)] {
        mesh.get_at_last(pod, &format!("http://{ip}:8080/"))?;
    }
    let bystander = mesh.traffic("shop/carol", &format!("{bob}:9100"), &["--kept", "--at-least", "20"])?;
    let mut taken_back = Vec::new();
    // Alice's is the caller's certificate, and her callee's node cuts; dave's is the server's, and his caller's node cuts.
    for (account, held_on, caller, callee, cut_on, direction, reporter) in [
        ("alice", "node1", "alice", bob, "node2", "inbound", "destination"),
        ("dave", "node2", "carol", dave, "node1", "outbound", "source"),
    ] {
        let caller = format!("shop/{caller}");
        let open = mesh.traffic(&caller, &format!("{callee}:9100"), &["--kept", "--to-failure"])?;
        taken_back.push(serial(mesh, held_on, account)?);
        write(list, &revoke(&ca, &taken_back)?)?;
        let tally = open.outlived(NOTICED).with_context(|| format!("{account} is revoked"))?;
        ensure!(tally.good > 0, "{tally:?}");
        let ztunnel = format!("ztunnel-{cut_on}");
        mesh.log_line(&ztunnel, &["CERT_REVOKED", &format!("direction=\"{direction}\""), "connection closed because"])?;
        until("the cut is counted", || {
            let metrics = mesh.metrics(cut_on)?;
            let cut = metrics.sum("istio_crl_policy_rejections_total", &[("reporter", reporter)]);
            let closed = [("reporter", reporter), ("response_flags", "CERT_REVOKED")];
            let closed = metrics.sum("istio_tcp_connections_closed_total", &closed);
            ensure!(cut > 0.0 && closed > 0.0, "{cut} cut, {closed} closed");
            Ok(())
        })?;
        // Nobody gets in with it again, for the same reason as before: one more line of it.
        let again = format!("http://{callee}:8080/");
        let said = ["CERT_REVOKED", &format!("direction=\"{direction}\"")];
        let is_it = |line: &&str| said.iter().all(|word| line.contains(word));
        let lines = || Ok::<_, anyhow::Error>(mesh.log(&ztunnel)?.lines().filter(is_it).count());
        let before = lines()?;
        ensure!(mesh.get(&caller, &again).is_err(), "{account} gets in again");
        until("the log says why", || {
            ensure!(mesh.get(&caller, &again).is_err(), "{account} gets in again");
            ensure!(lines()? > before, "no new line says so");
            Ok(())
        })?;
    }
    bystander.finish()?.flawless(20)
}

/// The serial number of a service account's certificate on a node.
fn serial(mesh: &Mesh, node: &str, account: &str) -> Result<SerialNumber> {
    let dump = mesh.config_dump(node)?;
    let identity = format!("spiffe://cluster.local/ns/shop/sa/{account}");
    let all = dump["certificates"].as_array().context("no certificates in the state")?;
    let own = all.iter().find(|c| c["identity"] == identity.as_str()).with_context(|| format!("none of {identity}"))?;
    let text = own["certChain"][0]["serialNumber"].as_str().with_context(|| format!("{own}"))?;
    // Decimal, of up to 20 bytes.
    let mut bytes = vec![0_u8; 20];
    for digit in text.chars() {
        let mut carry = digit.to_digit(10).with_context(|| format!("{text} is no number"))?;
        for byte in bytes.iter_mut().rev() {
            carry += u32::from(*byte) * 10;
            *byte = carry as u8;
            carry >>= 8;
        }
        ensure!(carry == 0, "{text} is too large");
    }
    let leading = bytes.iter().take_while(|b| **b == 0).count();
    Ok(SerialNumber::from(bytes.split_off(leading)))
}

fn revoke(ca: &Issuer<'_, KeyPair>, serials: &[SerialNumber]) -> Result<String> {
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2024, 6, 17),
        next_update: date_time_ymd(2024, 6, 18),
        crl_number: 1.into(),
        issuing_distribution_point: None,
        revoked_certs: serials
            .iter()
            .map(|serial| RevokedCertParams {
                serial_number: serial.clone(),
                revocation_time: date_time_ymd(2024, 6, 17),
                reason_code: None,
                invalidity_date: None,
            })
            .collect(),
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    list.signed_by(ca)?.pem().map_err(|e| anyhow!("the list: {e}"))
}

/// In one step, as a mounted ConfigMap changes.
fn write(list: &Path, content: &str) -> Result<()> {
    let next = list.with_extension("next");
    std::fs::write(&next, content)?;
    std::fs::rename(&next, list).context("cannot write the list")
}
