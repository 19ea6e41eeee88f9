//! Which names a pod resolves: the content of its `/etc/hosts` and its `/etc/resolv.conf`.
use crate::manifest::Key;
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

/// The hosts file of a pod in `namespace`. Every service has its forms from the longest to the shortest that is
/// unambiguous there, as a cluster's DNS search list would find them.
pub(crate) fn hosts(namespace: &str, own: (&str, &[IpAddr]), services: &BTreeMap<Key, Vec<IpAddr>>) -> String {
    let mut text = String::from(
        "# Written by ambit; kept up to date.\n127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n",
    );
    // Writing to a String cannot fail.
    for ip in own.1 {
        let _ = writeln!(text, "{ip} {}", own.0);
    }
    for ((service_namespace, service), addresses) in services {
        let mut names = vec![
            format!("{service}.{service_namespace}.svc.cluster.local"),
            format!("{service}.{service_namespace}.svc"),
            format!("{service}.{service_namespace}"),
        ];
        if service_namespace == namespace && service != own.0 {
            names.push(service.clone());
        }
        for address in addresses {
            let _ = writeln!(text, "{address} {}", names.join(" "));
        }
    }
    text
}

/// The lines of a pod's `spec.hostAliases`, as a kubelet adds them.
pub(crate) fn aliases(pod: &Pod) -> String {
    let aliases = pod.spec.iter().flat_map(|spec| spec.host_aliases.iter().flatten());
    let lines = aliases.filter_map(|alias| Some(format!("{} {}\n", alias.ip, alias.hostnames.as_ref()?.join(" "))));
    lines.collect()
}

/// The `resolv.conf` of a pod in `namespace`, as a kubelet would write it. Nobody has the server's address: where a
/// pod's DNS is captured ztunnel answers whatever server it asks. Elsewhere there is none, and names fail at once.
pub(crate) fn resolv_conf(namespace: &str, captured: bool) -> String {
    if !captured {
        return "# Written by ambit: names are in /etc/hosts.\noptions timeout:1 attempts:1\n".into();
    }
    format!(
        "# Written by ambit: ztunnel answers.\nnameserver 10.96.0.10\n\
         search {namespace}.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_is_captured_asks() {
        assert!(resolv_conf("b", true).contains("\nnameserver 10.96.0.10\nsearch b.svc.cluster.local "));
        assert!(!resolv_conf("b", false).contains("nameserver"));
    }

    #[test]
    fn aliases_are_added() {
        let pod: Pod = serde_saphyr::from_str(
            "{metadata: {name: p}, spec: {containers: [], hostAliases: [{ip: 10.1.2.3, hostnames: [a.b, c]}, {ip: 'fd00::1'}]}}",
        )
        .unwrap();
        assert_eq!(aliases(&pod), "10.1.2.3 a.b c\n");
    }

    #[test]
    fn short_names_are_of_the_own_namespace() {
        let services = BTreeMap::from([
            (("a".into(), "web".into()), vec!["10.96.0.1".parse().unwrap()]),
            (("b".into(), "web".into()), vec!["10.96.0.2".parse().unwrap(), "fd00::2".parse().unwrap()]),
        ]);
        let text = hosts("b", ("me", &["10.244.1.2".parse().unwrap()]), &services);
        let lines: Vec<&str> = text.lines().skip(3).collect();
        assert_eq!(
            lines,
            [
                "10.244.1.2 me",
                "10.96.0.1 web.a.svc.cluster.local web.a.svc web.a",
                "10.96.0.2 web.b.svc.cluster.local web.b.svc web.b web",
                "fd00::2 web.b.svc.cluster.local web.b.svc web.b web",
            ]
        );
    }
}
