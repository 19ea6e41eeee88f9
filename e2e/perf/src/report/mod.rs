//! What was measured, brought together: by case and metric, every world's spread and the ratios between worlds. Pure.
//!
//! | file | question |
//! |---|---|
//! | `metric` | what a metric's name means to people |
//! | `table` | the numbers for a terminal and for a page |
//! | `page` | the page in `docs` |
mod metric;
mod page;
mod table;

pub(crate) use page::page;
pub(crate) use table::text;

use crate::machine::Circumstances;
use crate::measure::Row;
use crate::statistics::{self, Spread};
use crate::world::Kind;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Everything about one run; the JSON form.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) circumstances: Circumstances,
    pub(crate) summary: Vec<Section>,
    pub(crate) rows: Vec<Row>,
}

/// One case.
#[derive(Debug, Serialize, PartialEq)]
pub(crate) struct Section {
    pub(crate) case: String,
    pub(crate) lines: Vec<Line>,
    /// Failed requests by world, where there were any.
    pub(crate) errors: BTreeMap<Kind, u64>,
}

/// One metric of a case.
#[derive(Debug, Serialize, PartialEq)]
pub(crate) struct Line {
    pub(crate) metric: &'static str,
    pub(crate) worlds: BTreeMap<Kind, Spread>,
    /// Taken within each round, then brought together.
    pub(crate) ratios: Vec<Ratio>,
}

/// How two worlds compare.
#[derive(Debug, Serialize, PartialEq)]
pub(crate) struct Ratio {
    pub(crate) of: Kind,
    pub(crate) to: Kind,
    pub(crate) spread: Spread,
}

/// The ratios people ask for.
const RATIOS: [(Kind, Kind); 4] =
    [(Kind::Ambit, Kind::Direct), (Kind::Envoy, Kind::Direct), (Kind::Ambit, Kind::Envoy), (Kind::Ambit, Kind::Before)];

/// Brings rows together, cases in the order in which they first appear.
pub(crate) fn summarize(rows: &[Row]) -> Vec<Section> {
    let mut cases: Vec<&str> = Vec::new();
    for row in rows {
        if !cases.contains(&row.case.as_str()) {
            cases.push(&row.case);
        }
    }
    cases.into_iter().map(|case| section(case, rows)).collect()
}

fn section(case: &str, rows: &[Row]) -> Section {
    let rows: Vec<&Row> = rows.iter().filter(|row| row.case == case).collect();
    let measured: BTreeSet<&str> = rows.iter().flat_map(|row| row.metrics.keys().copied()).collect();
    let lines = metric::ALL.iter().filter(|m| measured.contains(m.name)).map(|m| line(m.name, &rows)).collect();
    let mut errors = BTreeMap::new();
    for row in rows.iter().filter(|row| row.errors > 0) {
        *errors.entry(row.world).or_default() += row.errors;
    }
    Section { case: case.to_owned(), lines, errors }
}

fn line(metric: &'static str, rows: &[&Row]) -> Line {
    let mut rounds: BTreeMap<Kind, BTreeMap<u32, f64>> = BTreeMap::new();
    for row in rows {
        if let Some(value) = row.metrics.get(metric) {
            rounds.entry(row.world).or_default().insert(row.round, *value);
        }
    }
    let spread = |values: &BTreeMap<u32, f64>| statistics::spread(&values.values().copied().collect::<Vec<_>>());
    let worlds = rounds.iter().filter_map(|(world, values)| Some((*world, spread(values)?))).collect();
    let ratio =
        |(of, to): (Kind, Kind)| Some(Ratio { of, to, spread: statistics::ratio(rounds.get(&of)?, rounds.get(&to)?)? });
    Line { metric, worlds, ratios: RATIOS.into_iter().filter_map(ratio).collect() }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn row(round: u32, world: Kind, case: &str, metrics: &[(&'static str, f64)]) -> Row {
        let metrics = metrics.iter().copied().collect();
        Row { round, world, case: case.into(), metrics, errors: 0, example: None }
    }

    #[test]
    fn rounds_are_compared_with_themselves() {
        let mut rows = vec![
            row(0, Kind::Direct, "remote/bulk", &[("gbit_per_s", 40.0)]),
            row(0, Kind::Ambit, "remote/bulk", &[("gbit_per_s", 10.0), ("proxy_cpu_s_per_gb", 1.0)]),
            // The machine was half as fast in this round.
            row(1, Kind::Direct, "remote/bulk", &[("gbit_per_s", 20.0)]),
            row(1, Kind::Ambit, "remote/bulk", &[("gbit_per_s", 5.0), ("proxy_cpu_s_per_gb", 2.0)]),
        ];
        rows[3].errors = 7;
        let summary = summarize(&rows);
        let spread = |median, min, max| Spread { median, min, max, count: 2 };
        let expected = Section {
            case: "remote/bulk".into(),
            lines: vec![
                Line {
                    metric: "gbit_per_s",
                    worlds: BTreeMap::from([
                        (Kind::Direct, spread(30.0, 20.0, 40.0)),
                        (Kind::Ambit, spread(7.5, 5.0, 10.0)),
                    ]),
                    ratios: vec![Ratio { of: Kind::Ambit, to: Kind::Direct, spread: spread(0.25, 0.25, 0.25) }],
                },
                Line {
                    metric: "proxy_cpu_s_per_gb",
                    worlds: BTreeMap::from([(Kind::Ambit, spread(1.5, 1.0, 2.0))]),
                    ratios: vec![],
                },
            ],
            errors: BTreeMap::from([(Kind::Ambit, 7)]),
        };
        assert_eq!(summary, [expected]);
    }
}
