//! The table of a control-plane run, and its place on the page of benchmarks. Pure.
use super::feed::Marked;
use crate::cli::ControlPlane;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Begins the section.
const HEADING: &str = "## The control plane at scale\n";
/// What comes after it on the page.
const NEXT: &str = "\n## ";

/// What was measured.
#[derive(Debug, Clone)]
pub(crate) struct Figures {
    /// Seconds until everything was published for the first time, and of CPU.
    pub(crate) first: (f64, f64),
    /// Bytes.
    pub(crate) held_per_workload: f64,
    pub(crate) costs: Costs,
    /// Seconds until all subscribers had everything.
    pub(crate) synced: f64,
    /// Bytes held while they had.
    pub(crate) peak: f64,
    pub(crate) changes: usize,
    /// Changes that not all subscribers had heard of when the run ended.
    pub(crate) unheard: usize,
    /// Milliseconds from a change to the last subscriber's receipt.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) longest: f64,
    /// Cores used meanwhile, by the control plane and by all subscribers.
    pub(crate) cores: (f64, f64),
    /// Bytes of changes that the subscribers were sent, all of them, and responses.
    pub(crate) bytes: u64,
    pub(crate) responses: u64,
}

/// Milliseconds of CPU of one change, until it is published and encoded once.
#[derive(Debug, Clone)]
pub(crate) struct Costs {
    pub(crate) pod: f64,
    pub(crate) service: f64,
    pub(crate) authorization: f64,
    pub(crate) peer_authentication: f64,
}

/// How long each change took until the last subscriber had it, in milliseconds. `last`: when the last subscriber had a
/// generation, or a later one.
pub(crate) fn convergence(sent: &[Marked], last: &BTreeMap<u64, f64>) -> Vec<f64> {
    let at = |change: &Marked| Some((last.range(change.generation..).next()?.1 - change.sent) * 1e3);
    sent.iter().filter_map(at).collect()
}

/// The table, in Markdown.
pub(crate) fn table(args: &ControlPlane, figures: &Figures) -> String {
    let Figures { costs, first, cores, .. } = figures;
    let rows = [
        ("first publication of everything", format!("{:.1} s, {:.1} s of CPU", first.0, first.1)),
        (
            "memory of the control plane for each workload, objects included",
            format!("{:.0} bytes", figures.held_per_workload),
        ),
        ("one pod, CPU until published", format!("{:.2} ms", costs.pod)),
        ("one service with its endpoints, CPU until published", format!("{:.2} ms", costs.service)),
        ("one AuthorizationPolicy of a namespace, CPU until published", format!("{:.2} ms", costs.authorization)),
        ("one PeerAuthentication of a namespace, CPU until published", format!("{:.2} ms", costs.peer_authentication)),
        ("until all subscribers had everything", format!("{:.0} s", figures.synced)),
        ("memory of the control plane then", format!("{:.0} MB", figures.peak / 1e6)),
        ("from a change to the last subscriber's receipt, p50", format!("{:.0} ms", figures.p50)),
        ("p99", format!("{:.0} ms", figures.p99)),
        ("longest", format!("{:.0} ms", figures.longest)),
        ("cores used meanwhile, control plane", format!("{:.2}", cores.0)),
        ("cores used meanwhile, all subscribers", format!("{:.2}", cores.1)),
        (
            "sent for one change, to all subscribers",
            format!("{:.0} kB", figures.bytes as f64 / figures.changes as f64 / 1e3),
        ),
        (
            "changes in one response",
            format!("{:.1}", figures.changes as f64 * f64::from(args.subscribers) / figures.responses as f64),
        ),
        ("changes, and those that somebody never heard of", format!("{}, {}", figures.changes, figures.unheard)),
    ];
    let mut table = format!(
        "| {} pods, {} services, {} subscribers, {} changes/s | |\n|---|---:|\n",
        args.pods, args.services, args.subscribers, args.rate
    );
    for (what, figure) in rows {
        // Writing to a String cannot fail.
        let _ = writeln!(table, "| {what} | {figure} |");
    }
    table
}

/// The section of the page.
pub(crate) fn section(args: &ControlPlane, figures: &Figures, circumstances: &str) -> String {
    format!(
        "{HEADING}\n{circumstances}\n\n{}\n\
         One istiod-lite, fed with objects as a watch feeds it, and ztunnels' streams over TLS on the same machine: the\n\
         subscribers' share of the cores is what a mesh has elsewhere. They take in everything and keep nothing. A change is a\n\
         pod that becomes ready or stops being so; what changes while a subscriber has not answered comes to it together.\n",
        table(args, figures)
    )
}

/// The section as a page has it, to be kept when the rest is written anew.
pub(crate) fn kept_section(page: &str) -> Option<&str> {
    let begin = page.find(HEADING)?;
    let rest = page.get(begin..)?;
    Some(rest.get(..rest.find(NEXT).map_or(rest.len(), |end| end + 1))?.trim_end())
}

/// The page with this section instead of the one that it has, or after all others.
pub(crate) fn with_section(page: &str, section: &str) -> String {
    match kept_section(page) {
        Some(old) => page.replacen(old, section.trim_end(), 1),
        None => format!("{}\n\n{}\n", page.trim_end(), section.trim_end()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_has_arrived_when_the_last_subscriber_has_it_or_what_came_after_it() {
        let last = BTreeMap::from([(4, 10.0), (7, 12.0)]);
        let sent = [(9.5, 3), (9.5, 4), (9.5, 5), (11.0, 7), (11.0, 8)];
        let sent = sent.map(|(sent, generation)| Marked { sent, generation });
        assert_eq!(convergence(&sent, &last), [500.0, 500.0, 2500.0, 1000.0]);
    }

    #[test]
    fn the_section_takes_the_place_of_the_one_before() {
        let page = "# Benchmarks\n\n## Results\n\nx\n";
        let first = with_section(page, &format!("{HEADING}\none\n"));
        assert_eq!(first, format!("{page}\n{HEADING}\none\n"));
        let between = first.replace("one\n", "one\n\n## More\n\ny\n");
        let second = with_section(&between, &format!("{HEADING}\ntwo\n"));
        assert_eq!(second, between.replace("one", "two"));
        assert_eq!(kept_section(&second), Some(&*format!("{HEADING}\ntwo")));
        assert_eq!(kept_section(page), None);
    }
}
