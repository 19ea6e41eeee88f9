//! From words to an expression. What is not followed is refused by name.

use std::time::Duration;

use http::header::HeaderName;
use regex::bytes::RegexBuilder;

use super::attribute;
use super::invalid::InvalidExpression;
use super::lex::{Token, words};
use super::node::{Node, Op, Pattern};
use super::value::{Type, Value};

/// Most bytes of an expression: it is read by people, and asked of each request.
const MOST_BYTES: usize = 2048;
/// Most parentheses in one another.
const MOST_DEPTH: usize = 32;
/// Most that one compiled regular expression takes, in bytes; and of what it learns as it runs, for each thread.
const MAX_COMPILED: usize = 256 * 1024;
const MAX_LEARNT: usize = 64 * 1024;

const HEADERS: &str = "request.headers";

type Result<T> = std::result::Result<T, InvalidExpression>;
/// A part, what it is, and where it begins.
type Part = (Node, Type, usize);

struct Parser {
    words: Vec<(usize, Token)>,
    next: usize,
    depth: usize,
}

/// Reads an expression that comes to true or false.
pub(super) fn parse(text: &str) -> Result<Node> {
    if text.len() > MOST_BYTES {
        let why = format!("longer than {MOST_BYTES} bytes");
        return Err(InvalidExpression { at: 1, why });
    }
    let mut parser = Parser { words: words(text)?, next: 0, depth: 0 };
    let root = parser.or()?;
    match parser.peek() {
        Token::End => condition(root),
        other => {
            let why = match other {
                Token::Sign(sign) => format!("{sign:?} is not followed here"),
                _ => "here another expression begins".to_owned(),
            };
            parser.refuse(format!("{why}: comparisons are joined by && and ||, and grouped by parentheses"))
        }
    }
}

fn condition((node, kind, at): Part) -> Result<Node> {
    match kind {
        Type::Bool => Ok(node),
        kind => Err(InvalidExpression { at, why: format!("this is {kind}, where true or false is needed") }),
    }
}

impl Parser {
    fn peek(&self) -> &Token {
        self.word(0)
    }

    fn word(&self, further: usize) -> &Token {
        // The last word is the end, and is never passed.
        &self.words[(self.next + further).min(self.words.len() - 1)].1
    }

    fn at(&self) -> usize {
        self.words[self.next].0
    }

    fn pass(&mut self) {
        self.next = (self.next + 1).min(self.words.len() - 1);
    }

    fn take(&mut self, sign: &str) -> bool {
        let is = matches!(self.peek(), Token::Sign(found) if *found == sign);
        if is {
            self.pass();
        }
        is
    }

    fn need(&mut self, sign: &str) -> Result<()> {
        match self.take(sign) {
            true => Ok(()),
            false => self.refuse(format!("{sign:?} is missing")),
        }
    }

    fn refuse<T>(&self, why: impl Into<String>) -> Result<T> {
        Err(InvalidExpression { at: self.at(), why: why.into() })
    }

    fn or(&mut self) -> Result<Part> {
        self.joined("||", Self::and, Node::Any)
    }

    fn and(&mut self) -> Result<Part> {
        self.joined("&&", Self::relation, Node::All)
    }

    fn joined(&mut self, sign: &str, part: fn(&mut Self) -> Result<Part>, join: fn(Vec<Node>) -> Node) -> Result<Part> {
        let first = part(self)?;
        if !matches!(self.peek(), Token::Sign(found) if *found == sign) {
            return Ok(first);
        }
        let at = first.2;
        let mut all = vec![condition(first)?];
        while self.take(sign) {
            all.push(condition(part(self)?)?);
        }
        Ok((join(all), Type::Bool, at))
    }

    fn relation(&mut self) -> Result<Part> {
        let (left, kind, at) = self.unary()?;
        if matches!(self.peek(), Token::Name(name) if name == "in") {
            self.pass();
            return self.one_of((left, kind, at));
        }
        let Some(op) = self.comparison() else { return Ok((left, kind, at)) };
        let (right, other, other_at) = self.unary()?;
        if kind != other {
            let why = format!("this is {other}, and is compared with {kind}");
            return Err(InvalidExpression { at: other_at, why });
        }
        if kind == Type::Bool && !matches!(op, Op::Equal | Op::NotEqual) {
            return Err(InvalidExpression { at, why: "true and false are compared by == and != only".into() });
        }
        Ok((Node::Compare(left.into(), op, right.into()), Type::Bool, at))
    }

    fn comparison(&mut self) -> Option<Op> {
        let Token::Sign(sign) = self.peek() else { return None };
        let op = match *sign {
            "==" => Op::Equal,
            "!=" => Op::NotEqual,
            "<" => Op::Less,
            "<=" => Op::LessOrEqual,
            ">" => Op::Greater,
            ">=" => Op::GreaterOrEqual,
            _ => return None,
        };
        self.pass();
        Some(op)
    }

    /// What follows `in`.
    fn one_of(&mut self, (left, kind, at): Part) -> Result<Part> {
        if !self.take("[") {
            let name = self.path();
            return match (name.as_deref(), left) {
                (Some(HEADERS), Node::Constant(Value::Text(name))) => {
                    Ok((Node::HasHeader(self.header(&name)?), Type::Bool, at))
                }
                _ => self.refuse("after `in` comes a list such as [500, 503], or 'name' in request.headers"),
            };
        }
        let mut values = Vec::new();
        while !self.take("]") {
            if !values.is_empty() {
                self.need(",")?;
            }
            match self.unary()? {
                (Node::Constant(value), ..) if value.kind() == kind => values.push(value),
                (.., at) => {
                    return Err(InvalidExpression {
                        at,
                        why: format!("the list has {kind} in each place, written out"),
                    });
                }
            }
        }
        Ok((Node::OneOf(left.into(), values), Type::Bool, at))
    }

    fn unary(&mut self) -> Result<Part> {
        let at = self.at();
        if self.take("-") {
            let Token::Int(number) = *self.peek() else { return self.refuse("\"-\" is followed before a number only") };
            self.pass();
            return Ok((Node::Constant(Value::Int(-number)), Type::Int, at));
        }
        let mut turned = None;
        while self.take("!") {
            turned = Some(!turned.unwrap_or(false));
        }
        let part = self.member()?;
        Ok(match turned {
            None => part,
            Some(false) => (condition(part)?, Type::Bool, at),
            Some(true) => (Node::Not(condition(part)?.into()), Type::Bool, at),
        })
    }

    /// Something, and what is asked of it.
    fn member(&mut self) -> Result<Part> {
        let (mut node, mut kind, at) = self.primary()?;
        while self.take(".") {
            let Token::Name(method) = self.peek().clone() else { return self.refuse("a name is missing") };
            let place = self.at();
            if kind != Type::Text || !matches!(&*method, "startsWith" | "endsWith" | "contains" | "matches") {
                return self.refuse(format!(
                    "{method} is not followed of {kind}: a text has startsWith, endsWith, contains and matches"
                ));
            }
            self.pass();
            let text = self.argument()?;
            let pattern = match &*method {
                "startsWith" => Pattern::StartsWith(text),
                "endsWith" => Pattern::EndsWith(text),
                "contains" => Pattern::Contains(text),
                _ => {
                    // Of bytes, as those of routes are.
                    let mut builder = RegexBuilder::new(&text);
                    let regex =
                        builder.unicode(false).size_limit(MAX_COMPILED).dfa_size_limit(MAX_LEARNT).build().map_err(
                            |error| InvalidExpression {
                                at: place,
                                why: format!("the regular expression {text:?}: {error}"),
                            },
                        )?;
                    Pattern::Matches(regex.into())
                }
            };
            (node, kind) = (Node::Is(node.into(), pattern), Type::Bool);
        }
        Ok((node, kind, at))
    }

    /// One text in parentheses.
    fn argument(&mut self) -> Result<String> {
        self.need("(")?;
        let Token::Text(text) = self.peek().clone() else { return self.refuse("a text in quotes is missing") };
        self.pass();
        self.need(")")?;
        Ok(text)
    }

    fn primary(&mut self) -> Result<Part> {
        let at = self.at();
        if self.take("(") {
            self.depth += 1;
            if self.depth > MOST_DEPTH {
                return self.refuse(format!("more than {MOST_DEPTH} parentheses in one another"));
            }
            let (node, kind, _) = self.or()?;
            self.need(")")?;
            self.depth -= 1;
            return Ok((node, kind, at));
        }
        let constant = match self.peek() {
            Token::Int(number) => Value::Int(*number),
            Token::Text(text) => Value::Text(text.clone().into()),
            Token::Name(name) if name == "true" => Value::Bool(true),
            Token::Name(name) if name == "false" => Value::Bool(false),
            Token::Name(_) => return self.name(at),
            Token::Sign(sign) => {
                let sign = *sign;
                return self.refuse(format!("{sign:?} is not followed here: a value is missing"));
            }
            Token::End => return self.refuse("a value is missing at the end"),
        };
        self.pass();
        let kind = constant.kind();
        Ok((Node::Constant(constant), kind, at))
    }

    /// What begins with a name.
    fn name(&mut self, at: usize) -> Result<Part> {
        let Some(path) = self.path() else { return self.refuse("a name is missing") };
        if matches!(self.peek(), Token::Sign("(")) {
            return match &*path {
                "has" => {
                    self.pass();
                    let inner = self.at();
                    let path = self.path().unwrap_or_default();
                    let node = match self.known(&path, inner)? {
                        (Node::Attribute(attribute), _) => Node::Has(attribute),
                        (Node::Header(name), _) => Node::HasHeader(name),
                        _ => return self.refuse("has() is asked of attributes"),
                    };
                    self.need(")")?;
                    Ok((node, Type::Bool, at))
                }
                "duration" => {
                    let text = self.argument()?;
                    let length = duration(&text).ok_or_else(|| InvalidExpression {
                        at,
                        why: format!("{text:?} is not a length of time such as 500ms, 1.5s or 1m"),
                    })?;
                    Ok((Node::Constant(Value::Duration(length)), Type::Duration, at))
                }
                _ => Err(InvalidExpression {
                    at,
                    why: format!("the function {path} is not followed: there are has and duration"),
                }),
            };
        }
        let (node, kind) = self.known(&path, at)?;
        Ok((node, kind, at))
    }

    /// Names with dots between them; one that is called is none of them.
    fn path(&mut self) -> Option<String> {
        let Token::Name(first) = self.peek() else { return None };
        let mut path = first.clone();
        self.pass();
        while let (Token::Sign("."), Token::Name(name)) = (self.peek(), self.word(1))
            && *self.word(2) != Token::Sign("(")
        {
            path = format!("{path}.{name}");
            self.pass();
            self.pass();
        }
        Some(path)
    }

    /// What a path stands for; of headers, with what follows it in brackets.
    fn known(&mut self, path: &str, at: usize) -> Result<(Node, Type)> {
        if path == HEADERS {
            self.need("[")?;
            let Token::Text(name) = self.peek().clone() else { return self.refuse("write request.headers['name']") };
            let header = self.header(&name)?;
            self.pass();
            self.need("]")?;
            return Ok((Node::Header(header), Type::Text));
        }
        let of_map = path.strip_prefix(HEADERS).and_then(|rest| rest.strip_prefix('.'));
        if let Some(name) = of_map.or_else(|| attribute::header(path)) {
            return Ok((Node::Header(self.header(name)?), Type::Text));
        }
        let Some((attribute, kind)) = attribute::named(path) else {
            let why = format!(
                "{path} is no attribute that a waypoint knows: there are {}, and request.headers['name']",
                attribute::names()
            );
            return Err(InvalidExpression { at, why });
        };
        Ok((Node::Attribute(attribute), kind))
    }

    fn header(&self, name: &str) -> Result<HeaderName> {
        let refuse = |_| InvalidExpression { at: self.at(), why: format!("{name:?} is no name of a header") };
        HeaderName::from_bytes(name.as_bytes()).map_err(refuse)
    }
}

/// As CEL writes lengths of time: numbers with units, one after the other.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut all = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "h" => 3_600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        rest = &rest[end..];
        all = all.checked_add(Duration::try_from_secs_f64(number * unit).ok()?)?;
    }
    (!text.is_empty()).then_some(all)
}
