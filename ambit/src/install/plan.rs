//! Which command of Helm's does what was asked. Pure.

use std::ffi::OsString;
use std::path::Path;

use super::arguments::{Place, UninstallArgs, What};

/// Charts that there is one of on a cluster, whatever the revisions of control planes.
const ONCE: [&str; 3] = ["crds", "node-agent", "ztunnel"];

/// What is rendered without a cluster is for this version of Kubernetes.
const KUBERNETES: &str = "1.36.0";

/// Makes or changes the mesh of the chart. `verb` is Helm's.
pub(super) fn make(verb: &str, what: &What, chart: &Path) -> Vec<OsString> {
    let mut args: Vec<OsString> = verb.split(' ').map(OsString::from).collect();
    args.insert(1, what.place.release().into());
    args.insert(2, chart.into());
    match args[0].to_str() {
        Some("install") => args.push("--create-namespace".into()),
        // What was set before stays, and what is new in the charts comes.
        Some("upgrade") => args.push("--reset-then-reuse-values".into()),
        _ => {}
    }
    place(&mut args, &what.place);
    for file in &what.values {
        args.extend(["--values".into(), file.into()]);
    }
    let profile = what.profile.map(|profile| format!("global.profile={}", profile.word()));
    let revision = what.place.revision.iter().flat_map(|revision| {
        let own = format!("istiod-lite.revision={revision}");
        ONCE.iter().map(|chart| format!("{chart}.enabled=false")).chain([own])
    });
    // Those said one by one come last, and count.
    for value in profile.into_iter().chain(revision).chain(what.set.iter().cloned()) {
        args.extend(["--set".into(), value.into()]);
    }
    args
}

/// Removes it.
pub(super) fn remove(asked: &UninstallArgs) -> Vec<OsString> {
    let mut args: Vec<OsString> = vec!["uninstall".into(), asked.place.release().into()];
    place(&mut args, &asked.place);
    if asked.purge {
        // What the control plane writes, it writes again as long as it runs.
        if asked.place.wait.is_none() {
            args.push("--wait".into());
        }
        args.extend(["--cascade".into(), "foreground".into()]);
    }
    args
}

fn place(args: &mut Vec<OsString>, place: &Place) {
    args.extend(["--namespace".into(), place.namespace.clone().into()]);
    // `helm template` asks no cluster, and has its own idea of one.
    if args[0] == "template" {
        args.extend(["--kube-version".into(), KUBERNETES.into()]);
    } else {
        if let Some(file) = &place.cluster.kubeconfig {
            args.extend(["--kubeconfig".into(), file.into()]);
        }
        if let Some(context) = &place.cluster.context {
            args.extend(["--kube-context".into(), context.into()]);
        }
        if let Some(seconds) = place.wait {
            args.extend(["--wait".into(), "--timeout".into(), format!("{seconds}s").into()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    /// The command line of Helm that a command line of ours comes to.
    fn planned(line: &str) -> String {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap_or_else(|e| panic!("{line}: {e}"));
        let chart = Path::new("/c/ambit");
        let args = match cli.command {
            Command::Install(args) if args.dry_run => make("template", &args.what, chart),
            Command::Install(args) => make("install", &args.what, chart),
            Command::Upgrade(args) if args.dry_run => make("upgrade --dry-run", &args.what, chart),
            Command::Upgrade(args) => make("upgrade", &args.what, chart),
            Command::Uninstall(args) => remove(&args),
            other => panic!("{other:?}"),
        };
        args.iter().map(|arg| arg.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_is_asked_and_what_helm_is_told() {
        for (asked, told) in [
            ("ambit install", "install ambit /c/ambit --create-namespace --namespace istio-system"),
            (
                "ambit install --profile ha --set a=b --set c=d -f one.yaml --values two.yaml -n mesh --wait",
                "install ambit /c/ambit --create-namespace --namespace mesh --wait --timeout 300s --values one.yaml --values \
                 two.yaml --set global.profile=ha --set a=b --set c=d",
            ),
            (
                "ambit install --dry-run --wait 7 --kubeconfig k --context x",
                "template ambit /c/ambit --namespace istio-system --kube-version 1.36.0",
            ),
            // A second control plane: what there is one of is left as it is, unless it is asked for.
            (
                "ambit install --revision blue --set crds.enabled=true",
                "install ambit-blue /c/ambit --create-namespace --namespace istio-system --set crds.enabled=false --set \
                 node-agent.enabled=false --set ztunnel.enabled=false --set istiod-lite.revision=blue --set crds.enabled=true",
            ),
            (
                "ambit upgrade --kubeconfig k --context x --wait 7",
                "upgrade ambit /c/ambit --reset-then-reuse-values --namespace istio-system --kubeconfig k --kube-context x --wait \
                 --timeout 7s",
            ),
            (
                "ambit upgrade --dry-run --profile minimal",
                "upgrade ambit /c/ambit --dry-run --reset-then-reuse-values --namespace istio-system --set global.profile=minimal",
            ),
            ("ambit uninstall", "uninstall ambit --namespace istio-system"),
            ("ambit uninstall --revision blue", "uninstall ambit-blue --namespace istio-system"),
            ("ambit uninstall --purge", "uninstall ambit --namespace istio-system --wait --cascade foreground"),
            (
                "ambit uninstall --purge --yes --wait 9",
                "uninstall ambit --namespace istio-system --wait --timeout 9s --cascade foreground",
            ),
        ] {
            assert_eq!(planned(asked), told, "{asked}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_a_mistake() {
        for line in [
            "ambit install --profile huge",
            "ambit uninstall --yes",
            "ambit uninstall --purge --revision blue",
            "ambit install --dry-run --charts d",
            "ambit uninstall --set a=b",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
