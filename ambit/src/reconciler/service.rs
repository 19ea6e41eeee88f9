//! What an API server would have written into a Service by now. Pure.
use istiod_lite::translate::endpoints;
use k8s_openapi::api::core::v1::Service;
use std::net::IpAddr;

/// What a service is another name for, if it is nothing else.
pub(super) fn external_name(service: &Service) -> Option<&str> {
    let spec = service.spec.as_ref().filter(|s| s.type_.as_deref() == Some("ExternalName"))?;
    spec.external_name.as_deref()
}

/// Addresses the user wrote into the service.
pub(super) fn chosen_addresses(service: &Service) -> Vec<IpAddr> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let many = spec.cluster_ips.iter().flatten();
    let mut ips: Vec<IpAddr> = spec.cluster_ip.iter().chain(many).filter_map(|ip| ip.parse().ok()).collect();
    ips.dedup();
    ips
}

/// Address families of a service, as an API server would write them: those of the addresses it has, else one unless it
/// asks for two. A headless service whose endpoints are given has both, because nobody knows what they will be.
pub(super) fn families(service: &Service, addresses: &[IpAddr], ipv6: bool) -> Vec<String> {
    let families = |list: &[&str]| list.iter().map(|f| (*f).to_owned()).collect();
    if !addresses.is_empty() {
        return families(&addresses.iter().map(|ip| family(*ip)).collect::<Vec<_>>());
    }
    let Some(spec) = &service.spec else { return families(&["IPv4"]) };
    let all: Vec<&str> = spec.ip_families.iter().flatten().map(String::as_str).collect();
    let named: Vec<&str> = all.into_iter().filter(|f| *f == "IPv4" || ipv6).collect();
    let given = endpoints::is_headless(service) && !endpoints::has_selector(service);
    let dual = match spec.ip_family_policy.as_deref() {
        Some(policy) => matches!(policy, "PreferDualStack" | "RequireDualStack"),
        None => given && named.is_empty(),
    };
    match (&named[..], dual && ipv6) {
        ([], true) => families(&["IPv4", "IPv6"]),
        ([], false) => families(&["IPv4"]),
        (["IPv4"], true) => families(&["IPv4", "IPv6"]),
        (["IPv6"], true) => families(&["IPv6", "IPv4"]),
        (named, _) => families(named),
    }
}

/// Kubernetes' word for the family of an address.
pub(super) fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_by_policy() {
        for (spec, addresses, ipv6, expected) in [
            ("{}", &[][..], true, &["IPv4"][..]),
            ("{ipFamilyPolicy: PreferDualStack}", &[], true, &["IPv4", "IPv6"]),
            ("{ipFamilyPolicy: PreferDualStack}", &[], false, &["IPv4"]),
            ("{ipFamilies: [IPv6]}", &[], true, &["IPv6"]),
            ("{ipFamilies: [IPv6], ipFamilyPolicy: RequireDualStack}", &[], true, &["IPv6", "IPv4"]),
            ("{ipFamilies: [IPv6]}", &[], false, &["IPv4"]),
            ("{clusterIP: None, selector: {a: b}}", &[], true, &["IPv4"]),
            ("{clusterIP: None, selector: {a: b}, ipFamilies: [IPv6]}", &[], true, &["IPv6"]),
            ("{clusterIP: None}", &[], true, &["IPv4", "IPv6"]),
            ("{clusterIP: None, ipFamilies: [IPv4]}", &[], true, &["IPv4"]),
            ("{clusterIP: None, ipFamilyPolicy: SingleStack}", &[], true, &["IPv4"]),
            ("{clusterIP: 'fd00::1'}", &["fd00::1"], true, &["IPv6"]),
        ] {
            let service: Service = serde_saphyr::from_str(&format!("{{metadata: {{name: s}}, spec: {spec}}}")).unwrap();
            let addresses: Vec<IpAddr> = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
            assert_eq!(families(&service, &addresses, ipv6), expected, "{spec} {ipv6}");
        }
    }
}
