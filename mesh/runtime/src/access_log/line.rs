//! An entry as one line (pure).

use std::fmt::{self, Display, Write};
use std::net::SocketAddr;

use tracing::Level;

use super::entry::{Direction, Entry, Event, Peer, Request};
use crate::log::{LogFormat, level_name};
use crate::text::{Escape, Escaped};
use crate::timestamp::Timestamp;

/// Appends the line, with its end.
pub(super) fn write(out: &mut String, format: LogFormat, now: Timestamp, level: Level, entry: &Entry<'_>) {
    let message = match entry.event {
        Event::Complete if entry.request.is_some() => "request complete",
        Event::Complete => "connection complete",
        Event::Opened => "connection opened",
        Event::Failed => "connection failed",
    };
    let level = level_name(level);
    // Writing into a String cannot fail; a value's own Display that does leaves its value cut short.
    let _ = match format {
        LogFormat::Plain => write!(out, "{now}\t{level}\taccess\t{message}"),
        LogFormat::Json => {
            write!(out, r#"{{"time":"{now}","level":"{level}","scope":"access","message":"{message}""#)
        }
    };
    let mut fields = Fields { out, format, separator: '\t' };
    let Peer { addr, workload, namespace, identity, cluster } = &entry.src;
    fields.addr("src.addr", *addr);
    fields.text("src.workload", *workload);
    fields.text("src.namespace", *namespace);
    fields.quoted("src.identity", *identity);
    fields.text("src.cluster", *cluster);
    let Peer { addr, workload, namespace, identity, cluster } = &entry.dst;
    fields.addr("dst.addr", *addr);
    fields.bare("dst.hbone_addr", entry.hbone_addr);
    fields.text("dst.service", entry.service);
    fields.text("dst.workload", *workload);
    fields.text("dst.namespace", *namespace);
    fields.quoted("dst.identity", *identity);
    fields.text("dst.cluster", *cluster);
    fields.text("direction", entry.direction.map(Direction::as_str));
    if let Some(Request { method, path, authority, protocol, status, route }) = &entry.request {
        fields.text("method", Some(method));
        fields.text("path", Some(shortened(path)));
        fields.text("authority", Some(authority));
        fields.text("protocol", Some(protocol));
        fields.number("response_code", Some(u64::from(*status)));
        fields.quoted("route", *route);
    }
    fields.number("bytes_sent", entry.bytes_sent);
    fields.number("bytes_recv", entry.bytes_recv);
    let duration = entry.duration.map(|duration| duration.as_millis());
    fields.quoted("duration", duration.as_ref().map(|ms| Millis(*ms)).as_ref().map(display));
    fields.text("reason", entry.reason);
    fields.quoted("policy", entry.policy);
    fields.quoted("audit", entry.audit);
    fields.quoted("trace", entry.trace);
    fields.quoted("traceID", entry.trace_id);
    fields.quoted("error", entry.error);
    out.push_str(match format {
        LogFormat::Plain => "\n",
        LogFormat::Json => "}\n",
    });
}

/// As much of a path as is logged: a stranger decides how long it is.
fn shortened(path: &str) -> &str {
    const MOST: usize = 1024;
    let end = (0..=MOST.min(path.len())).rev().find(|end| path.is_char_boundary(*end)).unwrap_or(0);
    &path[..end]
}

struct Millis(u128);

impl Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}

fn display<T: Display>(value: &T) -> &dyn Display {
    value
}

struct Fields<'a> {
    out: &'a mut String,
    format: LogFormat,
    /// Before the next plain field: the first is set off from the message by a tab.
    separator: char,
}

impl Fields<'_> {
    /// An address has nothing in it to escape.
    fn addr(&mut self, name: &str, value: Option<SocketAddr>) {
        let Some(value) = value else { return };
        let quote = if self.name(name, Escape::Bare) == Escape::Json { "\"" } else { "" };
        self.out.push_str(quote);
        let _ = write!(self.out, "{value}");
        self.out.push_str(quote);
    }

    /// Not quoted in plain lines: addresses.
    fn bare(&mut self, name: &str, value: Option<&dyn Display>) {
        self.put(name, value, self.format == LogFormat::Json, Escape::Bare);
    }

    fn quoted(&mut self, name: &str, value: Option<&dyn Display>) {
        self.put(name, value, true, Escape::Quoted);
    }

    fn text(&mut self, name: &str, value: Option<&str>) {
        let Some(value) = value.filter(|value| !value.is_empty()) else { return };
        let escape = self.name(name, Escape::Quoted);
        self.out.push('"');
        let _ = Escaped::new(self.out, escape).write_str(value);
        self.out.push('"');
    }

    fn number(&mut self, name: &str, value: Option<u64>) {
        self.put(name, value.as_ref().map(display), false, Escape::Bare);
    }

    fn put(&mut self, name: &str, value: Option<&dyn Display>, quoted: bool, escape: Escape) {
        let Some(value) = value else { return };
        let escape = self.name(name, escape);
        let quote = if quoted { "\"" } else { "" };
        self.out.push_str(quote);
        let _ = write!(Escaped::new(self.out, escape), "{value}");
        self.out.push_str(quote);
    }

    /// Begins a field; says how its value is escaped.
    fn name(&mut self, name: &str, escape: Escape) -> Escape {
        match self.format {
            LogFormat::Plain => {
                self.out.push(self.separator);
                self.separator = ' ';
                self.out.push_str(name);
                self.out.push('=');
                escape
            }
            LogFormat::Json => {
                self.out.push_str(",\"");
                self.out.push_str(name);
                self.out.push_str("\":");
                Escape::Json
            }
        }
    }
}
