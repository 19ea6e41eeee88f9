//! Pages for who asks for them compressed: large ones, again and again.

use std::fmt;
use std::io::{BufWriter, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, header};

use super::Writer;

/// Whether a client takes gzip (RFC 9110, section 12.5.3): named with a weight above 0, or by `*` if it is not named.
pub(crate) fn is_accepted(headers: &HeaderMap) -> bool {
    let (mut gzip, mut any) = (None, None);
    for line in headers.get_all(header::ACCEPT_ENCODING) {
        for coding in line.to_str().unwrap_or_default().split(',') {
            let mut parts = coding.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default().to_ascii_lowercase();
            let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
            // What is no number is no wish that could be granted.
            let wanted = weight.is_none_or(|weight| weight.parse::<f32>().is_ok_and(|weight| weight > 0.0));
            match name.as_str() {
                "gzip" | "x-gzip" => gzip = Some(wanted),
                "*" => any = Some(wanted),
                _ => {}
            }
        }
    }
    gzip.or(any).unwrap_or(false)
}

/// Writes text on compressed. Takes a while for much of it: keep it off a runtime that carries traffic.
pub(crate) struct Compressed(BufWriter<GzEncoder<Writer>>);

impl Compressed {
    pub(crate) fn new(to: Writer) -> Self {
        // Text comes a few bytes at a time.
        Self(BufWriter::new(GzEncoder::new(to, Compression::fast())))
    }

    /// Writes what is left of it.
    pub(crate) fn finish(self) -> Result<Writer, fmt::Error> {
        self.0.into_inner().map_err(|_| fmt::Error)?.finish().map_err(|_| fmt::Error)
    }
}

impl fmt::Write for Compressed {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write_all(text.as_bytes()).map_err(|_| fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn asked_for_by_accept_encoding() {
        let cases: [(&[&'static str], bool); 10] = [
            (&[], false),
            (&["gzip"], true),
            (&["deflate, GZIP;q=0.5"], true),
            (&["gzip;q=0"], false),
            (&["gzip; q=0.000, *"], false),
            (&["*"], true),
            (&["*;q=0"], false),
            (&["identity", "x-gzip"], true),
            (&["br, zstd"], false),
            (&["gzip;q=much"], false),
        ];
        for (lines, expected) in cases {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::ACCEPT_ENCODING, HeaderValue::from_static(line));
            }
            assert_eq!(is_accepted(&headers), expected, "{lines:?}");
        }
    }
}
