//! How one event becomes one line.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields, MakeWriter};
use tracing_subscriber::layer::Layer;
use tracing_subscriber::registry::LookupSpan;

use crate::text::{Escape, Escaped};
use crate::timestamp::Timestamp;

/// The layer that writes each event as one line.
pub(super) fn layer<S, F, W>(format: F, writer: W) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    F: FormatEvent<S, SpanFields> + Send + Sync + 'static,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    tracing_subscriber::fmt::layer().fmt_fields(SpanFields).event_format(format).with_ansi(false).with_writer(writer)
}

/// The level's name in both formats.
pub(crate) fn level_name(level: Level) -> &'static str {
    match level {
        Level::TRACE => "trace",
        Level::DEBUG => "debug",
        Level::INFO => "info",
        Level::WARN => "warn",
        Level::ERROR => "error",
    }
}

/// `time ⇥ level ⇥ scope[:span{fields}] ⇥ message ⇥ fields`.
pub(super) struct Plain;

impl<S: Subscriber + for<'a> LookupSpan<'a>> FormatEvent<S, SpanFields> for Plain {
    fn format_event(&self, ctx: &FmtContext<'_, S, SpanFields>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let meta = event.metadata();
        write!(out, "{}\t{}\t{}", Timestamp::now(), level_name(*meta.level()), meta.target())?;
        for span in ctx.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            write!(out, ":{}", span.name())?;
            if let Some(fields) = span.extensions().get::<FormattedFields<SpanFields>>()
                && !fields.is_empty()
            {
                write!(out, "{{{fields}}}")?;
            }
        }
        let said = meta.fields().field("message");
        let mut message = PlainMessage { out: &mut out, said: said.as_ref(), result: Ok(()) };
        message.out.write_char('\t')?;
        event.record(&mut message);
        message.result?;
        let mut fields = PlainFields { out: &mut out, said: said.as_ref(), separator: "\t", result: Ok(()) };
        event.record(&mut fields);
        fields.result?;
        out.write_char('\n')
    }
}

/// One object per line; spans as `"spans": ["name{fields}"]`.
pub(super) struct Json;

impl<S: Subscriber + for<'a> LookupSpan<'a>> FormatEvent<S, SpanFields> for Json {
    fn format_event(&self, ctx: &FmtContext<'_, S, SpanFields>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let meta = event.metadata();
        write!(out, r#"{{"time":"{}","level":"{}","scope":""#, Timestamp::now(), level_name(*meta.level()))?;
        Escaped::new(&mut out, Escape::Json).write_str(meta.target())?;
        out.write_char('"')?;
        let mut spans = ctx.event_scope().into_iter().flat_map(|scope| scope.from_root()).peekable();
        if spans.peek().is_some() {
            for (index, span) in spans.enumerate() {
                out.write_str(if index == 0 { r#","spans":[""# } else { r#"",""# })?;
                let mut escaped = Escaped::new(&mut out, Escape::Json);
                escaped.write_str(span.name())?;
                if let Some(fields) = span.extensions().get::<FormattedFields<SpanFields>>()
                    && !fields.is_empty()
                {
                    write!(escaped, "{{{fields}}}")?;
                }
            }
            out.write_str("\"]")?;
        }
        let said = meta.fields().field("message");
        let mut fields = JsonFields { out: &mut out, said: said.as_ref(), result: Ok(()) };
        event.record(&mut fields);
        fields.result?;
        out.write_str("}\n")
    }
}

/// How the fields of spans are kept: as plain `a=1 b="x"`.
pub(super) struct SpanFields;

impl<'w> FormatFields<'w> for SpanFields {
    fn format_fields<R: tracing_subscriber::field::RecordFields>(&self, mut out: Writer<'w>, fields: R) -> fmt::Result {
        let mut visitor = PlainFields { out: &mut out, said: None, separator: "", result: Ok(()) };
        fields.record(&mut visitor);
        visitor.result
    }
}

/// Keys of a line's own. The first field that is called `message` is what was said; every other field that has one of
/// these names is written behind `field.`, so that no line has a key twice.
const OWN: [&str; 5] = ["time", "level", "scope", "spans", "message"];

/// What stands before a field's name in a line; `said` is the field that was said.
fn before(field: &Field, said: Option<&Field>) -> &'static str {
    if said != Some(field) && OWN.contains(&field.name()) { "field." } else { "" }
}

/// The message only.
struct PlainMessage<'a, 'w> {
    out: &'a mut Writer<'w>,
    said: Option<&'a Field>,
    result: fmt::Result,
}

impl Visit for PlainMessage<'_, '_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if Some(field) == self.said && self.result.is_ok() {
            self.result = write!(Escaped::new(self.out, Escape::Bare), "{value:?}");
        }
    }
}

/// Everything but the message: `a=1 b="x"`.
struct PlainFields<'a, 'w> {
    out: &'a mut Writer<'w>,
    said: Option<&'a Field>,
    separator: &'static str,
    result: fmt::Result,
}

impl PlainFields<'_, '_> {
    fn write(&mut self, field: &Field, value: fmt::Arguments<'_>, quoted: bool) {
        if Some(field) == self.said || self.result.is_err() {
            return;
        }
        let (before, name) = (before(field, self.said), field.name());
        let quote = if quoted { "\"" } else { "" };
        let escape = if quoted { Escape::Quoted } else { Escape::Bare };
        self.result = write!(self.out, "{}{before}{name}={quote}", self.separator)
            .and_then(|()| Escaped::new(self.out, escape).write_fmt(value))
            .and_then(|()| self.out.write_str(quote));
        self.separator = " ";
    }
}

impl Visit for PlainFields<'_, '_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.write(field, format_args!("{value:?}"), false);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.write(field, format_args!("{value}"), true);
    }
}

/// Message and fields as members of an object that is already open.
struct JsonFields<'a, 'w> {
    out: &'a mut Writer<'w>,
    said: Option<&'a Field>,
    result: fmt::Result,
}

impl JsonFields<'_, '_> {
    fn write(&mut self, field: &Field, value: fmt::Arguments<'_>, quoted: bool) {
        if self.result.is_err() {
            return;
        }
        let (before, name) = (before(field, self.said), field.name());
        let quote = if quoted { "\"" } else { "" };
        self.result = write!(self.out, r#","{before}{name}":{quote}"#)
            .and_then(|()| Escaped::new(self.out, Escape::Json).write_fmt(value))
            .and_then(|()| self.out.write_str(quote));
    }
}

impl Visit for JsonFields<'_, '_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.write(field, format_args!("{value:?}"), true);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.write(field, format_args!("{value}"), true);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.write(field, format_args!("{value}"), false);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.write(field, format_args!("{value}"), false);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.write(field, format_args!("{value}"), false);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no infinity and no NaN.
        self.write(field, format_args!("{value}"), !value.is_finite());
    }
}
