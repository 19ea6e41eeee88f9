//! Pages for who asks for them compressed: large ones, again and again.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, header};

use super::Response;

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

/// The page, compressed. Takes a while for a large one: keep it off a runtime that carries traffic.
///
/// # Errors
/// Never, as far as is known: it is written to memory.
pub(crate) fn compress(mut page: Response) -> io::Result<Response> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(page.body().len() / 8), Compression::fast());
    encoder.write_all(page.body())?;
    *page.body_mut() = encoder.finish()?.into();
    page.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    Ok(page)
}

#[cfg(test)]
mod tests {
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
