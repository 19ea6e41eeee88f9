//! Where in a document's text a field is: built only once something is wrong with it.

use serde_saphyr::granit_parser::{Event, Parser};

use crate::resources::field::{FieldPath, Segment};

/// A line and a column, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) line: usize,
    pub(super) column: usize,
}

struct Node {
    at: Position,
    children: Children,
}

enum Children {
    None,
    /// Key, where the key is, value.
    Map(Vec<(String, Position, Node)>),
    List(Vec<Node>),
}

/// The positions of everything in a document.
pub(super) struct Locations {
    root: Option<Node>,
}

impl Locations {
    /// Reads a document that is known to parse; whatever does not is simply not found.
    pub(super) fn read(text: &str) -> Self {
        let mut events = Parser::new_from_str(text).filter_map(Result::ok).filter_map(|(event, span)| {
            let skip = matches!(event, Event::StreamStart | Event::DocumentStart(..) | Event::Comment(..));
            let at = Position { line: span.start.line(), column: span.start.col() + 1 };
            (!skip).then_some((event, at))
        });
        Self { root: events.next().and_then(|(event, at)| node(event, at, &mut events)) }
    }

    /// The deepest part of the path that is there: a missing field is found at the object that lacks it.
    pub(super) fn find(&self, path: &FieldPath) -> Option<Position> {
        let mut node = self.root.as_ref()?;
        let mut at = node.at;
        for segment in &path.0 {
            let next = match (segment, &node.children) {
                (Segment::Field(name), Children::Map(entries)) => {
                    entries.iter().find(|(key, ..)| key == name).map(|(_, at, value)| (*at, value))
                }
                (Segment::Index(index), Children::List(items)) => items.get(*index).map(|item| (item.at, item)),
                _ => None,
            };
            let Some((found, value)) = next else { break };
            (at, node) = (found, value);
        }
        Some(at)
    }
}

/// Builds the node that an event begins. Depth is bounded: the document passed the budgeted parser before.
fn node<'a>(event: Event<'a>, at: Position, events: &mut dyn Iterator<Item = (Event<'a>, Position)>) -> Option<Node> {
    let children = match event {
        Event::MappingStart(..) => {
            let mut entries = Vec::new();
            loop {
                let (event, key_at) = events.next()?;
                if matches!(event, Event::MappingEnd) {
                    break;
                }
                let name = if let Event::Scalar(text, ..) = &event { text.to_string() } else { String::new() };
                node(event, key_at, events)?;
                let (event, value_at) = events.next()?;
                entries.push((name, key_at, node(event, value_at, events)?));
            }
            Children::Map(entries)
        }
        Event::SequenceStart(..) => {
            let mut items = Vec::new();
            loop {
                let (event, at) = events.next()?;
                if matches!(event, Event::SequenceEnd) {
                    break;
                }
                items.push(node(event, at, events)?);
            }
            Children::List(items)
        }
        _ => Children::None,
    };
    Some(Node { at, children })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_fields_items_and_the_nearest_parent() {
        let text = "---\nspec:\n  rules:\n  - from:\n    - source: {ipBlocks: [a, b]}\n";
        let locations = Locations::read(text);
        let rule = FieldPath::of("spec.rules").index(0);
        let source = rule.field("from").index(0).field("source");
        for (path, line, column) in [
            (FieldPath::of("spec"), 2, 1),
            (rule.clone(), 4, 5),
            (source.field("ipBlocks").index(1), 5, 30),
            (source.field("missing"), 5, 7),
            (FieldPath::default(), 2, 1),
        ] {
            assert_eq!(locations.find(&path), Some(Position { line, column }), "{path}");
        }
    }
}
