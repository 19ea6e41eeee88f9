//! The page in `docs`: circumstances, tables, and how far they may be trusted.
use super::{Report, table};
use std::fmt::Write as _;

const METHOD: &str = "\
## What is compared

Three pods on two nodes, in network namespaces of one machine: `client` and `near` on the first node, `far` on the
second. `remote` is client to far, `same` is client to near. The same pods three times:

- **direct**: no mesh; plaintext between the pods.
- **ambit**: the whole mesh by `ambit up`: a ztunnel on each node, HBONE with mutual TLS between them. On one node both
  ends are the same ztunnel: same identities, policies, logs and metrics, but no encryption (`SAME_NODE_ENCRYPTION`).
- **envoy**: HBONE on both paths, by Envoys behind the same redirection rules: TCP proxy into HTTP/2 CONNECT over mutual
  TLS 1.3, and its end on the other side. Envoy cannot open its connections in other namespaces, so there is one Envoy
  beside each pod, two on each path, as many as ztunnels.

Cases: `bulk` is one TCP stream, counted by the receiver; `http1`, `http16`, `http64` are keep-alive connections with
one small request in flight each; `connect16` is 16 clients that open a connection for every request. Every answer is
compared byte by byte.

Each round runs every case in every world in turn, the order rotating. A cell is the median over the rounds, with the
smallest and the largest; a ratio is taken within each round, and called better or worse only if all of at least three
rounds agree.
Throughput is that of the whole chain, load and servers included, sharing this machine's cores: **CPU of the
proxies is the figure to compare proxies by.** It counts all threads of the two (or, for Envoy, three) proxy processes;
*everybody* adds the server, the load, and the kernel's network threads where they can be seen. Memory is that of the
two proxies on the remote path, after a second of rest.

## What is not the same

- ztunnel writes an access log line and updates Istio's metrics for each connection, and evaluates authorization
  policies (there are none here). Envoy does none of that here: its access log is off.
- Ambit's control plane, CA and node agents run beside it and are not counted; Envoy has its configuration and its
  certificates from files.
- Resident memory includes the program file's pages that were touched; *own (anonymous)* memory does not.
- A machine that does other things at the same time widens the ranges. Compare within one run only.

## What holds bulk back

On the remote path a byte crosses TCP three times instead of once, and some four fifths of the proxies' CPU are the
kernel's work for it: four copies, and the way of each segment (64 KB) through namespaces, firewall rules and
connection tracking. Encrypting and decrypting takes about 0.2 s/GB.

The congestion control of the machine of these figures is BBR, which waits for a timer at each segment. With `reno` in
all namespaces the same ztunnel took 0.61 times the CPU for a gigabyte, with segments of 200 KB on all links (BIG TCP)
0.62 times, with both 0.50 times. Both are the machine's or the network's to choose. Of no use, or within noise, were
larger and smaller reads, fixed socket buffers, a bound for what is not sent yet, and waiting for fuller reads.

Tables of 100,000 workloads are measured apart: [tables at scale](tables-at-scale.md).
";

/// The page.
pub(crate) fn page(report: &Report) -> String {
    let c = &report.circumstances;
    let mut out = String::from("# Benchmarks\n\n");
    let arguments = c.arguments.join(" ");
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "Written by `cargo run --release -p perf -- {arguments}` on {}; do not edit, run it again.\n",
        c.date
    );
    if !c.release {
        out.push_str("**This was a debug build: its numbers say nothing about Ambit.**\n\n");
    }
    let envoy = c.envoy.as_deref().unwrap_or("not measured");
    let _ = writeln!(
        out,
        "| | |\n|---|---|\n| machine | {}, {} cores, {:.0} GiB, Linux {} |\n| load average before the run | {} |\n| ambit | {} |\n| envoy | {envoy} |\n\
         | worker threads of each proxy | {} |\n| rounds | {} of {} s per case and world |\n",
        c.cpu, c.cores, c.memory_gib, c.kernel, c.load_average, c.ambit, c.workers, c.rounds, c.seconds
    );
    if c.load_average > c.cores as f64 / 2.0 {
        out.push_str(
            "**The machine was busy with other work during this run, so ranges are wide and latencies long.**\n\n",
        );
    }
    out.push_str("## Results\n\nMedian (smallest–largest).\n\n");
    for section in &report.summary {
        let what = match section.case.as_str() {
            "memory" => format!("memory, idle and with {} connections held", c.held),
            case => case.to_owned(),
        };
        let _ = writeln!(out, "### {what}\n\n{}", table::markdown(section));
    }
    out.push_str(METHOD);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Circumstances;
    use crate::report::{summarize, tests::row};
    use crate::world::Kind;

    #[test]
    fn a_page_says_where_it_comes_from() {
        let rows = vec![row(0, Kind::Ambit, "memory", &[("idle_mib", 20.0)])];
        let circumstances = Circumstances {
            date: "2026-01-02 03:04 UTC".into(),
            arguments: vec!["--reps".into(), "3".into()],
            cpu: "a processor".into(),
            cores: 2,
            memory_gib: 7.6,
            kernel: "6.1".into(),
            load_average: 1.5,
            release: false,
            ambit: "ambit 0.1.0".into(),
            envoy: None,
            workers: 2,
            rounds: 3,
            seconds: 2.0,
            held: 1000,
        };
        let page = page(&Report { circumstances, summary: summarize(&rows), rows });
        for part in [
            "`cargo run --release -p perf -- --reps 3` on 2026-01-02 03:04 UTC",
            "debug build",
            "a processor, 2 cores, 8 GiB, Linux 6.1",
            "| envoy | not measured |",
            "busy with other work",
            "### memory, idle and with 1000 connections held\n\n| memory | direct",
            "| idle: resident, MiB | – | 20.0 | – |",
        ] {
            assert!(page.contains(part), "no `{part}` in {page}");
        }
    }
}
