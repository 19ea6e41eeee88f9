//! The two text formats of a scrape (pure).

use std::fmt::{self, Write};

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

/// Writes on as Prometheus text what is written to it as OpenMetrics text. Samples are the same; the text format describes a counter under
/// the name of its samples (`x_total`), knows neither `info` nor `unknown`, and has no units and no end mark.
pub(super) struct Prometheus<W> {
    to: W,
    /// The line that is being written.
    line: String,
    /// Name and text of a help line, held back until the type says which name it goes under.
    help: Option<(String, String)>,
}

impl<W: Write> Prometheus<W> {
    pub(super) fn new(to: W) -> Self {
        Self { to, line: String::new(), help: None }
    }

    fn line(&mut self) -> fmt::Result {
        if let Some(described) = self.line.strip_prefix("# HELP ") {
            self.help = described.split_once(' ').map(|(name, help)| (name.to_owned(), help.to_owned()));
        } else if let Some((name, kind)) = self.line.strip_prefix("# TYPE ").and_then(|typed| typed.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                other => ("", other),
            };
            if let Some((_, help)) = self.help.take().filter(|(of, _)| of == name) {
                writeln!(self.to, "# HELP {name}{suffix} {help}")?;
            }
            writeln!(self.to, "# TYPE {name}{suffix} {kind}")?;
        } else if !self.line.starts_with("# UNIT ") && self.line != "# EOF" {
            self.line.push('\n');
            self.to.write_str(&self.line)?;
        }
        self.line.clear();
        Ok(())
    }
}

impl<W: Write> Write for Prometheus<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive('\n') {
            match part.strip_suffix('\n') {
                Some(end) => {
                    self.line.push_str(end);
                    self.line()?;
                }
                None => self.line.push_str(part),
            }
        }
        Ok(())
    }
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
        // Whole, and in whatever pieces it comes.
        for piece in [open_metrics.len(), 1, 7] {
            let mut written = String::new();
            let mut prometheus = Prometheus::new(&mut written);
            for piece in open_metrics.as_bytes().chunks(piece) {
                prometheus.write_str(std::str::from_utf8(piece).unwrap()).unwrap();
            }
            assert_eq!(written, text);
        }
    }
}
