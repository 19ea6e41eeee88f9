//! The two text formats of a scrape (pure).

use std::fmt::Write;

use http::{HeaderMap, header};

/// How metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextFormat {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus text 0.0.4.
    Prometheus,
}

impl TextFormat {
    /// The format for `Accept` headers: OpenMetrics if it is named there, text otherwise.
    pub fn accepted(headers: &HeaderMap) -> Self {
        let named = |kind: &str| {
            let kind = kind.split(';').next().unwrap_or_default().trim();
            kind.eq_ignore_ascii_case("application/openmetrics-text")
        };
        let lines = headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok());
        let named = lines.flat_map(|line| line.split(',')).any(named);
        if named { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// The `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// OpenMetrics text as Prometheus text. Samples are the same; the text format describes a counter under the name of its samples
/// (`x_total`), knows neither `info` nor `unknown`, and has no units and no end mark.
pub(super) fn to_prometheus(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help: Option<(&str, &str)> = None;
    for line in open_metrics.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            // Held back until the type says which name it goes under.
            help = described.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|typed| typed.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                other => ("", other),
            };
            if let Some((_, help)) = help.take().filter(|(of, _)| *of == name) {
                let _ = writeln!(text, "# HELP {name}{suffix} {help}");
            }
            let _ = writeln!(text, "# TYPE {name}{suffix} {kind}");
        } else if !line.starts_with("# UNIT ") && line != "# EOF" {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_by_accept() {
        let cases: [(&[&'static str], TextFormat); 6] = [
            (&[], TextFormat::Prometheus),
            (&["*/*"], TextFormat::Prometheus),
            (&["text/plain;version=0.0.4;q=0.3,*/*;q=0.1"], TextFormat::Prometheus),
            (&["application/openmetrics-text;version=1.0.0;q=0.75,text/plain;q=0.5"], TextFormat::OpenMetrics),
            (&["text/plain, Application/OpenMetrics-Text"], TextFormat::OpenMetrics),
            (&["application/json", "application/openmetrics-text; other"], TextFormat::OpenMetrics),
        ];
        for (lines, expected) in cases {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::ACCEPT, http::HeaderValue::from_static(line));
            }
            assert_eq!(TextFormat::accepted(&headers), expected, "{lines:?}");
        }
    }

    #[test]
    fn converted() {
        let open_metrics = "# HELP a Some a.\n# TYPE a counter\na_total{x=\"y\"} 3\n\
            # HELP b_bytes Some b.\n# TYPE b_bytes gauge\n# UNIT b_bytes bytes\nb_bytes 1\n\
            # TYPE c info\nc_info{v=\"1\"} 1\n# TYPE d unknown\nd 2\n# EOF\n";
        let text = "# HELP a_total Some a.\n# TYPE a_total counter\na_total{x=\"y\"} 3\n\
            # HELP b_bytes Some b.\n# TYPE b_bytes gauge\nb_bytes 1\n\
            # TYPE c_info gauge\nc_info{v=\"1\"} 1\n# TYPE d untyped\nd 2\n";
        assert_eq!(to_prometheus(open_metrics), text);
    }
}
