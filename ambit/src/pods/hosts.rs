//! Which names a pod resolves: the content of its `/etc/hosts` and its `/etc/resolv.conf`.
use crate::manifest::Key;
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

/// Most names that one leads to another through.
const MOST_ALIASES: usize = 8;

/// The pod whose files they are.
pub(crate) struct Own<'a> {
    pub(crate) key: &'a Key,
    pub(crate) pod: &'a Pod,
    pub(crate) ips: &'a [IpAddr],
}

impl Own<'_> {
    /// Its names for itself: as a kubelet writes them, and the pod's own.
    fn names(&self) -> Vec<String> {
        let (namespace, name) = self.key;
        let said = |field: Option<&String>| field.filter(|f| !f.is_empty()).cloned();
        let spec = self.pod.spec.as_ref();
        let hostname = said(spec.and_then(|s| s.hostname.as_ref())).unwrap_or_else(|| name.clone());
        let subdomain = said(spec.and_then(|s| s.subdomain.as_ref()));
        let mut names: Vec<String> =
            subdomain.map(|s| format!("{hostname}.{s}.{namespace}.svc.cluster.local")).into_iter().collect();
        names.extend([hostname, name.clone()]);
        names.dedup();
        names
    }
}

/// The hosts file of a pod. Every service, and every pod that has a name below one, has its forms from the longest to the
/// shortest that is unambiguous there, as a cluster's DNS search list would find them.
pub(crate) fn hosts(own: &Own<'_>, services: &BTreeMap<Key, Vec<IpAddr>>) -> String {
    let mut text = String::from(
        "# Written by ambit; kept up to date.\n127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n",
    );
    let own_names = own.names();
    // Writing to a String cannot fail.
    for ip in own.ips {
        let _ = writeln!(text, "{ip} {}", own_names.join(" "));
    }
    for ((namespace, service), addresses) in services {
        let mut names = vec![
            format!("{service}.{namespace}.svc.cluster.local"),
            format!("{service}.{namespace}.svc"),
            format!("{service}.{namespace}"),
        ];
        if *namespace == own.key.0 && !own_names.contains(service) {
            names.push(service.clone());
        }
        // Its own name is in the file already.
        names.retain(|name| !own_names.contains(name));
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

/// Adds names that are nothing but other names for services (`type: ExternalName`), each with the addresses of the
/// service that it leads to. A hosts file cannot say more: what is outside, DNS has to follow.
pub(crate) fn follow(names: &mut BTreeMap<Key, Vec<IpAddr>>, aliases: &BTreeMap<Key, String>) {
    for key in aliases.keys() {
        let mut at = key.clone();
        for _ in 0..MOST_ALIASES {
            let Some(target) = aliases.get(&at) else { break };
            let Some(next) = service_named(target) else { break };
            at = next;
        }
        if let Some(addresses) = names.get(&at).cloned() {
            names.insert(key.clone(), addresses);
        }
    }
}

/// The service, or the pod below one, that a name in full stands for.
fn service_named(name: &str) -> Option<Key> {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let (service, namespace) = name.strip_suffix(".svc.cluster.local")?.rsplit_once('.')?;
    Some((namespace.to_owned(), service.to_owned()))
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

    fn services(list: &[(&str, &str, &[&str])]) -> BTreeMap<Key, Vec<IpAddr>> {
        let addresses = |list: &[&str]| list.iter().map(|ip| ip.parse().unwrap()).collect();
        list.iter().map(|(ns, name, ips)| (((*ns).into(), (*name).into()), addresses(ips))).collect()
    }

    /// The lines about pods and services.
    fn lines(pod: &str, services: &BTreeMap<Key, Vec<IpAddr>>) -> Vec<String> {
        let pod: Pod = serde_saphyr::from_str(pod).unwrap();
        let key = ("b".to_owned(), "me".to_owned());
        let ips = ["10.244.1.2".parse().unwrap()];
        hosts(&Own { key: &key, pod: &pod, ips: &ips }, services).lines().skip(3).map(str::to_owned).collect()
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
        let services = services(&[
            ("a", "web", &["10.96.0.1"]),
            ("b", "web", &["10.96.0.2", "fd00::2"]),
            ("b", "web-0.web", &["10.244.1.9"]),
        ]);
        assert_eq!(
            lines("{metadata: {name: me}}", &services),
            [
                "10.244.1.2 me",
                "10.96.0.1 web.a.svc.cluster.local web.a.svc web.a",
                "10.96.0.2 web.b.svc.cluster.local web.b.svc web.b web",
                "fd00::2 web.b.svc.cluster.local web.b.svc web.b web",
                "10.244.1.9 web-0.web.b.svc.cluster.local web-0.web.b.svc web-0.web.b web-0.web",
            ]
        );
    }

    #[test]
    fn a_pod_knows_its_own_hostname() {
        for (spec, expected) in [
            ("{}", "me"),
            ("{hostname: me}", "me"),
            ("{hostname: web-0}", "web-0 me"),
            ("{hostname: web-0, subdomain: web}", "web-0.web.b.svc.cluster.local web-0 me"),
            ("{subdomain: web}", "me.web.b.svc.cluster.local me"),
        ] {
            let pod = format!("{{metadata: {{name: me}}, spec: {spec}}}");
            assert_eq!(lines(&pod, &BTreeMap::new()), [format!("10.244.1.2 {expected}")], "{spec}");
        }
    }

    #[test]
    fn other_names_lead_to_services() {
        let mut names = services(&[("c", "real", &["10.96.0.3"]), ("c", "web-0.web", &["10.244.1.3"])]);
        let aliases = [
            ("direct", "Real.c.svc.cluster.local."),
            ("twice", "direct.b.svc.cluster.local"),
            ("pod", "web-0.web.c.svc.cluster.local"),
            ("outside", "www.example.org"),
            ("nobody", "none.c.svc.cluster.local"),
            ("round", "about.b.svc.cluster.local"),
            ("about", "round.b.svc.cluster.local"),
        ];
        let aliases = aliases.map(|(name, target)| (("b".to_owned(), name.to_owned()), target.to_owned()));
        follow(&mut names, &aliases.into());
        let of = |name: &str| names.get(&("b".to_owned(), name.to_owned())).map(|ips| ips[0].to_string());
        for (name, expected) in [
            ("direct", Some("10.96.0.3")),
            ("twice", Some("10.96.0.3")),
            ("pod", Some("10.244.1.3")),
            ("outside", None),
            ("nobody", None),
            ("round", None),
        ] {
            assert_eq!(of(name).as_deref(), expected, "{name}");
        }
    }
}
