//! The numbers for a terminal and for a page.
use super::{Line, RATIOS, Section, metric};
use crate::statistics::Spread;
use crate::world::Kind;
use std::fmt::Write as _;

const WORLDS: [Kind; 4] = [Kind::Direct, Kind::Ambit, Kind::Before, Kind::Envoy];
/// For what was not measured.
const NOTHING: &str = "–";

/// For a terminal: columns lined up.
pub(crate) fn text(summary: &[Section]) -> String {
    let mut out = String::new();
    for section in summary {
        let rows = rows(section);
        let widths: Vec<usize> = (0..rows[0].len())
            .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default())
            .collect();
        out.push('\n');
        for row in rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            let line = cells.collect::<Vec<_>>().join("  ");
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{}", line.trim_end());
        }
        errors(&mut out, section);
    }
    out
}

/// For a page.
pub(super) fn markdown(section: &Section) -> String {
    let mut out = String::new();
    for (n, row) in rows(section).into_iter().enumerate() {
        let _ = writeln!(out, "| {} |", row.join(" | "));
        if n == 0 {
            let _ = writeln!(out, "|---|{}", "---:|".repeat(row.len() - 1));
        }
    }
    errors(&mut out, section);
    out
}

fn errors(out: &mut String, section: &Section) {
    for (world, count) in &section.errors {
        let _ = writeln!(out, "\n{world}: {count} requests FAILED in {}; its numbers do not count.", section.case);
    }
}

/// Head and lines, as cells.
fn rows(section: &Section) -> Vec<Vec<String>> {
    // Another build is the exception: its columns are there only where it was measured.
    let other_build = section.lines.iter().any(|line| line.worlds.contains_key(&Kind::Before));
    let shown = |world: Kind| world != Kind::Before || other_build;
    let worlds: Vec<Kind> = WORLDS.into_iter().filter(|world| shown(*world)).collect();
    let ratios: Vec<(Kind, Kind)> = RATIOS.into_iter().filter(|(_, to)| shown(*to)).collect();
    let mut head = vec![section.case.clone()];
    head.extend(worlds.iter().map(ToString::to_string));
    head.extend(ratios.iter().map(|(of, to)| format!("{of} / {to}")));
    let mut rows = vec![head];
    rows.extend(section.lines.iter().map(|line| cells(line, &worlds, &ratios)));
    rows
}

fn cells(line: &Line, worlds: &[Kind], ratios: &[(Kind, Kind)]) -> Vec<String> {
    let mut cells = vec![metric::named(line.metric).map_or(line.metric, |m| m.title).to_owned()];
    cells.extend(worlds.iter().map(|world| line.worlds.get(world).map_or(NOTHING.into(), range)));
    cells.extend(ratios.iter().map(|(of, to)| {
        let ratio = line.ratios.iter().find(|r| (r.of, r.to) == (*of, *to));
        ratio.map_or(NOTHING.into(), |r| verdict(line.metric, &r.spread))
    }));
    cells
}

fn range(spread: &Spread) -> String {
    let [median, min, max] = [spread.median, spread.min, spread.max].map(number);
    if spread.count == 1 { median } else { format!("{median} ({min}–{max})") }
}

/// Fewer rounds than this may agree by chance.
const ROUNDS_TO_AGREE: usize = 3;

/// The ratio, and whether it is for the better or the worse: only where all rounds agree, and there are enough of them.
fn verdict(name: &str, ratio: &Spread) -> String {
    let range = if ratio.count == 1 {
        format!("{:.2}×", ratio.median)
    } else {
        format!("{:.2}× ({:.2}–{:.2})", ratio.median, ratio.min, ratio.max)
    };
    if ratio.count < ROUNDS_TO_AGREE {
        return range;
    }
    let more_is_better = metric::named(name).is_some_and(|m| m.more_is_better);
    let word = match (ratio.min > 1.0, ratio.max < 1.0) {
        (true, _) => {
            if more_is_better {
                "better"
            } else {
                "worse"
            }
        }
        (_, true) => {
            if more_is_better {
                "worse"
            } else {
                "better"
            }
        }
        (false, false) => "even",
    };
    format!("{range} {word}")
}

/// Three digits that mean something.
fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{summarize, tests::row};

    fn s(median: f64, min: f64, max: f64, count: usize) -> Spread {
        Spread { median, min, max, count }
    }

    #[test]
    fn verdicts_need_all_rounds() {
        for (name, ratio, expected) in [
            ("gbit_per_s", s(2.0, 1.5, 3.0, 3), "2.00× (1.50–3.00) better"),
            ("gbit_per_s", s(0.5, 0.4, 0.6, 3), "0.50× (0.40–0.60) worse"),
            ("p50_us", s(2.0, 1.5, 3.0, 3), "2.00× (1.50–3.00) worse"),
            ("p50_us", s(0.5, 0.4, 0.6, 3), "0.50× (0.40–0.60) better"),
            ("p50_us", s(0.9, 0.5, 1.1, 3), "0.90× (0.50–1.10) even"),
            ("idle_mib", s(0.25, 0.25, 0.25, 1), "0.25×"),
        ] {
            assert_eq!(verdict(name, &ratio), expected);
        }
    }

    #[test]
    fn numbers_stay_short() {
        for (value, expected) in
            [(0.0, "0.000"), (0.1234, "0.123"), (1.5, "1.50"), (23.456, "23.5"), (12345.6, "12346")]
        {
            assert_eq!(number(value), expected);
        }
    }

    #[test]
    fn tables() {
        let mut rows = vec![
            row(0, Kind::Direct, "remote/http1", &[("requests_per_s", 1000.0)]),
            row(0, Kind::Ambit, "remote/http1", &[("requests_per_s", 500.0)]),
        ];
        rows[1].errors = 2;
        let summary = summarize(&rows);
        assert_eq!(
            markdown(&summary[0]),
            "| remote/http1 | direct | ambit | envoy | ambit / direct | envoy / direct | ambit / envoy |\n\
             |---|---:|---:|---:|---:|---:|---:|\n\
             | requests/s | 1000 | 500 | – | 0.50× | – | – |\n\
             \nambit: 2 requests FAILED in remote/http1; its numbers do not count.\n"
        );
        assert!(text(&summary).contains("requests/s    1000    500"), "{}", text(&summary));
    }

    #[test]
    fn another_build_has_columns_only_where_it_was_measured() {
        let mut measured = vec![row(0, Kind::Ambit, "remote/http1", &[("requests_per_s", 500.0)])];
        assert!(!text(&summarize(&measured)).contains("before"));
        measured.push(row(0, Kind::Before, "remote/http1", &[("requests_per_s", 250.0)]));
        let shown = text(&summarize(&measured));
        assert!(shown.contains("ambit / before") && shown.contains("2.00×"), "{shown}");
    }
}
