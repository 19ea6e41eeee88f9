//! Control planes and roots. Pure.
use super::objects::Object;
use super::status::{Replica, Root};
use istiod_lite::leader::Candidate;
use mesh_runtime::timestamp::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::time::{Duration, SystemTime};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Fewer days than these are left of the last root: somebody has to do something about it.
const SOON: i64 = 30;
/// The label of the control plane's pods: Istio's.
const APP: &str = "istiod";

/// The replicas in a namespace, and what is wrong with them. `leases` is None if they may not be read.
pub(super) fn replicas(
    pods: &[Object],
    namespace: &str,
    leases: Option<&[Object]>,
    problems: &mut Vec<String>,
) -> Vec<Replica> {
    let ours = pods.iter().filter(|pod| pod.label("app") == APP && pod.metadata.namespace == namespace);
    let mut replicas: Vec<Replica> = ours
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .map(|pod| Replica {
            name: pod.metadata.name.clone(),
            node: pod.spec_text("/nodeName").to_owned(),
            revision: Some(pod.label("istio.io/rev")).filter(|rev| !rev.is_empty()).unwrap_or("default").to_owned(),
            ready: pod.is_ready(),
            leader: false,
        })
        .collect();
    if replicas.is_empty() {
        problems.push(format!(
            "no control plane runs in namespace {namespace} (-i names another): no pod has the label app={APP}"
        ));
    } else if !replicas.iter().any(|replica| replica.ready) {
        problems.push(format!("no control plane is ready: kubectl -n {namespace} describe pods -l app={APP}"));
    }
    let Some(leases) = leases else { return replicas };
    let mut revisions: Vec<String> = replicas.iter().map(|replica| replica.revision.clone()).collect();
    revisions.dedup();
    for revision in revisions {
        let name = Candidate::lease_of(&revision);
        let lease = leases.iter().find(|lease| lease.metadata.name == name);
        let holder = lease.map_or("", |lease| lease.spec_text("/holderIdentity"));
        let pod = holder.rsplit_once('_').map_or(holder, |(pod, _)| pod);
        match replicas.iter_mut().find(|replica| replica.name == pod && replica.revision == revision) {
            Some(leader) => leader.leader = true,
            None if lease.is_none() => problems.push(format!(
                "no replica of revision {revision} leads, so nobody writes status: there is no lease {namespace}/{name}"
            )),
            None => problems.push(format!(
                "no replica of revision {revision} leads, so nobody writes status: the lease {namespace}/{name} is held by {holder:?}"
            )),
        }
    }
    replicas
}

/// The roots in PEM, and what is wrong with them.
pub(super) fn roots(pem: Option<&str>, namespace: &str, now: SystemTime, problems: &mut Vec<String>) -> Vec<Root> {
    let Some(pem) = pem else {
        problems
            .push(format!("no root certificate is published: there is no ConfigMap {namespace}/istio-ca-root-cert"));
        return Vec::new();
    };
    let now =
        i64::try_from(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()).unwrap_or(i64::MAX);
    let mut roots = Vec::new();
    for der in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let der = der.ok();
        let parsed = der.as_ref().and_then(|der| X509Certificate::from_der(der).ok());
        let Some((_, certificate)) = parsed else {
            problems.push(format!("a root certificate in ConfigMap {namespace}/istio-ca-root-cert cannot be read"));
            continue;
        };
        let ends = certificate.validity().not_after.timestamp();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(ends).unwrap_or_default());
        roots.push(Root {
            subject: certificate.subject().to_string(),
            ends: format!("{:.0}", Timestamp::from(time)),
            days: (ends - now).div_euclid(24 * 3600),
        });
    }
    // One that a rotation leaves behind may end; the mesh ends with the last.
    match roots.iter().max_by_key(|root| root.days) {
        Some(Root { days, .. }) if *days < 0 => {
            problems.push("every root certificate has ended: no connection of the mesh is accepted".to_owned())
        }
        Some(Root { days, ends, .. }) if *days < SOON => {
            problems.push(format!("the root certificate ends in {days} days, on {ends}: plug in its successor"));
        }
        _ => {}
    }
    roots
}
