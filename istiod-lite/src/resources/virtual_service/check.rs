//! What is refused of a VirtualService although the types fit: what Istio refuses, and what no waypoint of ours follows. Nothing that was
//! written is left aside in silence. One that is for gateways only is somebody else's, and left alone.

use super::super::field::FieldPath;
use super::super::host;
use super::VirtualService;
use super::check_part::{Checked, at_most, refuse};
use super::check_rule::rule;

/// Checks what the types alone do not.
pub(in super::super) fn validate(object: &VirtualService) -> Checked {
    let (path, spec) = (FieldPath::of("spec"), &object.spec);
    if !spec.is_for_mesh() {
        return Ok(());
    }
    let at = path.field("hosts");
    if spec.hosts.is_empty() {
        return Err(at.error("missing: write the names of Services"));
    }
    at_most(spec.hosts.len(), &at)?;
    spec.hosts.iter().enumerate().try_for_each(|(i, name)| host::name_or_wildcard(name, &at.index(i)))?;
    let not_followed = "not followed: only http is. Write the others in an object of their own";
    refuse(!spec.tls.is_empty(), path.field("tls"), not_followed)?;
    refuse(!spec.tcp.is_empty(), path.field("tcp"), not_followed)?;
    for (i, to) in spec.export_to.iter().enumerate() {
        let why = "who follows it is said by the Service's waypoint: write \"*\" or \".\", or leave it out";
        refuse(!matches!(to.as_str(), "*" | "."), path.field("exportTo").index(i), why)?;
    }
    let at = path.field("http");
    if spec.http.is_empty() {
        return Err(at.error("missing: write what is done with requests"));
    }
    at_most(spec.http.len(), &at)?;
    spec.http.iter().enumerate().try_for_each(|(i, one)| rule(one, &at.index(i)))
}
