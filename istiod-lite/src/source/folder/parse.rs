//! One file's text → the objects in it, and what is wrong with the rest. Pure.

use std::path::Path;

use serde_json::Value;

use super::documents::{self, Document};
use super::locate::{Locations, Position};
use crate::resources::field::FieldPath;
use crate::resources::unread::Unread;
use crate::resources::{Key, Kind, Object, Recognized, mesh_config, waypoint_parameters};
use crate::source::{Origin, Rejected, Skipped};

/// What a file says.
#[derive(Debug, Default)]
pub struct ParsedFile {
    /// The objects that are good.
    pub objects: Vec<ParsedObject>,
    /// What was refused, in the order of the file.
    pub errors: Vec<Rejected>,
    /// Objects of kinds that are not read.
    pub skipped: Vec<Skipped>,
    /// Which objects the refused text may have been.
    pub(super) claims: Vec<Claim>,
}

/// A good object and where it begins.
#[derive(Clone, Debug)]
pub struct ParsedObject {
    /// The object.
    pub object: Object,
    /// Line in its file, from 1.
    pub line: usize,
}

/// Which objects a refused text may have been: these keep their last good version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// This one.
    Key(Key),
    /// Any kind with this namespace and name: the kind itself was wrong.
    Name(Option<String>, String),
    /// Cannot be told: whatever the file said before.
    Anything,
}

impl Claim {
    pub(super) fn covers(&self, key: &Key) -> bool {
        match self {
            Self::Key(claimed) => claimed == key,
            Self::Name(namespace, name) => *key == Key::new(key.kind, namespace.as_deref(), name),
            Self::Anything => true,
        }
    }
}

/// Reads a file: documents separated by `---`, `kind: List`, YAML or JSON. `path` is only used to say where.
pub fn parse_file(path: &Path, text: &str) -> ParsedFile {
    let mut parsed = ParsedFile::default();
    for document in documents::split(text) {
        Reader { path, document, locations: None, parsed: &mut parsed }.read();
    }
    parsed
}

/// Reads one document.
struct Reader<'a> {
    path: &'a Path,
    document: Document<'a>,
    /// Made at the first error.
    locations: Option<Locations>,
    parsed: &'a mut ParsedFile,
}

/// What an object says of itself, as far as it can be read.
#[derive(Default)]
struct Header {
    api_version: Option<String>,
    kind: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
}

impl Header {
    fn of(value: &Value) -> Self {
        let text = |pointer| value.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        Self {
            api_version: text("/apiVersion"),
            kind: text("/kind"),
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name"),
        }
    }

    fn claim(&self) -> Claim {
        match &self.name {
            Some(name) => Claim::Name(self.namespace.clone(), name.clone()),
            None => Claim::Anything,
        }
    }
}

impl Reader<'_> {
    fn read(mut self) {
        match serde_saphyr::from_str_with_options::<Value>(self.document.text, options()) {
            Ok(Value::Null) => {}
            Ok(value) => self.object(value, FieldPath::default()),
            Err(error) => self.syntax(&error),
        }
    }

    /// The text is no YAML: nobody can tell which object it was.
    fn syntax(&mut self, error: &serde_saphyr::Error) {
        let at = error
            .location()
            .map(|l| Position { line: l.line() as usize, column: l.column() as usize })
            .filter(|at| at.line > 0)
            .unwrap_or(Position { line: 1, column: 1 });
        let message = plain(&error.without_snippet().to_string());
        self.reject(at, &Header::default(), None, message, Claim::Anything);
    }

    fn object(&mut self, mut value: Value, at: FieldPath) {
        let header = Header::of(&value);
        if !value.is_object() {
            return self.wrong(&header, &at, at.clone(), "expected an object with apiVersion, kind and metadata");
        }
        let (Some(api_version), Some(kind)) = (&header.api_version, &header.kind) else {
            let missing = if header.kind.is_none() { "kind" } else { "apiVersion" };
            return self.wrong(&header, &at, at.field(missing), "missing: every object says its apiVersion and kind");
        };
        if kind == "List" || (kind.ends_with("List") && value.get("items").is_some()) {
            let Some(Value::Array(items)) = value.get_mut("items").map(Value::take) else {
                return self.wrong(&header, &at, at.field("items"), "a List holds its objects in `items`");
            };
            if !at.0.is_empty() {
                return self.wrong(&header, &at, at.clone(), "a List inside a List is not read");
            }
            for (i, item) in items.into_iter().enumerate() {
                self.object(item, at.field("items").index(i));
            }
            return;
        }
        match Kind::recognize(api_version, kind) {
            Recognized::Read(Kind::ConfigMap)
                if !mesh_config::is_one(&value) && !waypoint_parameters::may_be(&value) =>
            {
                self.skip(&header, &at, Unread::SaysNothing);
            }
            Recognized::Read(kind) => self.typed(kind, value, &header, &at),
            Recognized::WrongVersion => {
                let message = format!("version {api_version} of {kind} is not read here");
                self.wrong(&header, &at, at.field("apiVersion"), &message);
            }
            Recognized::Misspelt(meant) => {
                let message = format!("{api_version} {kind} is not known here: did you mean `{meant}`?");
                self.wrong(&header, &at, at.field("kind"), &message);
            }
            Recognized::Unread(what) => {
                if what == Unread::Unknown {
                    // It may be a kind we read, misspelt: what it was before keeps serving.
                    self.parsed.claims.push(header.claim());
                }
                self.skip(&header, &at, what);
            }
        }
    }

    fn typed(&mut self, kind: Kind, value: Value, header: &Header, at: &FieldPath) {
        match Object::from_value(kind, &value) {
            Ok(object) => {
                let line = self.position(at).line + self.document.lines_before;
                self.parsed.objects.push(ParsedObject { object, line });
            }
            Err(invalid) => {
                let claim = match &header.name {
                    Some(name) => Claim::Key(Key::new(kind, header.namespace.as_deref(), name)),
                    None => Claim::Anything,
                };
                let field = invalid.path;
                let full = FieldPath(at.0.iter().chain(&field.0).cloned().collect());
                let position = self.locate(&full);
                self.reject(position, header, Some(&field), invalid.message, claim);
            }
        }
    }

    /// An object whose kind cannot be told.
    fn wrong(&mut self, header: &Header, at: &FieldPath, field: FieldPath, message: &str) {
        let position = self.locate(&field);
        let relative = FieldPath(field.0[at.0.len()..].to_vec());
        self.reject(position, header, Some(&relative), message.to_owned(), header.claim());
    }

    fn reject(&mut self, at: Position, header: &Header, field: Option<&FieldPath>, message: String, claim: Claim) {
        let line = at.line + self.document.lines_before;
        self.parsed.errors.push(Rejected {
            origin: Origin::File { file: self.path.to_owned(), line, column: at.column },
            kind: header.kind.clone(),
            namespace: header.namespace.clone(),
            name: header.name.clone(),
            field: field.map(ToString::to_string).filter(|f| !f.is_empty()),
            ..Rejected::file(self.path, message)
        });
        self.parsed.claims.push(claim);
    }

    fn skip(&mut self, header: &Header, at: &FieldPath, what: Unread) {
        let line = self.position(at).line + self.document.lines_before;
        let word = |part: &Option<String>| part.clone().unwrap_or_default();
        self.parsed.skipped.push(Skipped {
            file: self.path.to_owned(),
            line,
            kind: format!("{} {}", word(&header.api_version), word(&header.kind)),
            name: header.name.clone(),
            what,
        });
    }

    /// Where an object begins. A document's only object begins at its first line, found without reading it again.
    fn position(&mut self, at: &FieldPath) -> Position {
        if at.0.is_empty() {
            let content =
                |line: &str| !line.trim().is_empty() && !line.starts_with(['#', '%']) && !line.starts_with("---");
            let line = self.document.text.lines().position(content).unwrap_or(0) + 1;
            return Position { line, column: 1 };
        }
        self.locate(at)
    }

    fn locate(&mut self, path: &FieldPath) -> Position {
        let text = self.document.text;
        let locations = self.locations.get_or_insert_with(|| Locations::read(text));
        locations.find(path).unwrap_or(Position { line: 1, column: 1 })
    }
}

/// The parser's words, without those about a program that uses it.
fn plain(message: &str) -> String {
    // The position is said once, in the error's own fields, counted from the top of the file.
    let message = message.split(" at line ").next().unwrap_or(message);
    let message = message.split(", set ").next().unwrap_or(message);
    match message.strip_prefix("duplicate mapping key") {
        Some("") => "a field is there twice: keep one of the two".to_owned(),
        Some(key) => format!("the field{} is there twice: keep one of the two", key.trim_start_matches(':')),
        None => message.to_owned(),
    }
}

/// Bounds for one document; the file's size is bounded before.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: 64,
            max_nodes: 2_000_000,
            max_events: 4_000_000,
            max_aliases: 10_000,
        },
        with_snippet: false,
    }
}
