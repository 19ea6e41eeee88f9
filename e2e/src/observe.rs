//! Metrics and state of a node's ztunnel.
use std::collections::BTreeMap;

/// One line of a scrape.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The metric's name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

impl Sample {
    /// Whether one of its labels begins with this.
    pub fn names(&self, beginning: &str) -> bool {
        self.labels.values().any(|value| value.starts_with(beginning))
    }
}

/// A scrape.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Its lines.
    pub samples: Vec<Sample>,
}

impl Metrics {
    /// Reads the text format; lines it does not understand are left out.
    pub fn parse(text: &str) -> Self {
        Metrics { samples: text.lines().filter_map(sample).collect() }
    }

    /// Sum over all lines of this name that have these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |s: &&Sample| {
            s.name == name && labels.iter().all(|(key, value)| s.labels.get(*key).is_some_and(|v| v == value))
        };
        self.samples.iter().filter(fits).map(|s| s.value).sum()
    }
}

fn sample(line: &str) -> Option<Sample> {
    if line.starts_with('#') {
        return None;
    }
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}')?),
        None => (series, ""),
    };
    // Values of our labels hold neither quotes nor commas.
    let labels = labels
        .split(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned()))
        .collect();
    Some(Sample { name: name.to_owned(), labels, value: value.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scrapes() {
        let metrics = Metrics::parse("# HELP a b\na_total{x=\"1\",y=\"DENY\"} 3\na_total{x=\"2\",y=\"-\"} 4\nb 5\n");
        assert_eq!(metrics.sum("a_total", &[]), 7.0);
        assert_eq!(metrics.sum("a_total", &[("y", "DENY")]), 3.0);
        assert_eq!(metrics.sum("b", &[]), 5.0);
        assert_eq!(metrics.sum("c", &[]), 0.0);
        let named = |beginning| metrics.samples.iter().filter(|sample| sample.names(beginning)).count();
        assert_eq!((named("DE"), named("NY"), named("")), (1, 0, 2));
    }
}
