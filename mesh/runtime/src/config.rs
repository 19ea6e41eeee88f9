//! Environment → typed values, with errors that name the setting.
//!
//! [`Env`] is what was written: names and text. Each program reads it once into a struct of its own that says what it means, and only
//! that struct travels further. Tests build an `Env` from a list and never touch the process's environment.
//!
//! A variable that is set but empty counts as unset for every typed reader; [`Env::text`] alone shows the difference, because for
//! some Istio settings (`XDS_ADDRESS`) empty means *off*.

mod file_or_inline;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::nearest::nearest;

pub use file_or_inline::FileOrInline;
pub use values::{Share, parse_bool, parse_duration, parse_share};

/// What was set: variable names and their text. It remembers which names a program asked for, and so knows that program's settings.
#[derive(Clone, Default)]
pub struct Env {
    vars: BTreeMap<String, String>,
    /// Shared by all copies: reading the configuration is one thing, however it is done.
    asked: Arc<Mutex<Asked>>,
}

/// What a program asked for.
#[derive(Default)]
struct Asked {
    names: BTreeSet<String>,
    prefixes: BTreeSet<String>,
}

/// Why a setting cannot be used. The text is meant for the person who set it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The value has the wrong form.
    #[error("setting {name}={value:?} is not usable: expected {expected}")]
    Invalid {
        /// The environment variable.
        name: String,
        /// What it was set to, shortened if long.
        value: String,
        /// The form that would have been accepted.
        expected: String,
    },
    /// The setting has no default and was not given.
    #[error("setting {name} is required: set it to {expected}")]
    Missing {
        /// The environment variable.
        name: String,
        /// The form that would be accepted.
        expected: String,
    },
    /// No program reads a setting of this name.
    #[error("there is no setting {name}{}", nearest.as_ref().map_or_else(String::new, |name| format!("; did you mean {name}?")))]
    Unknown {
        /// What was written.
        name: String,
        /// The setting whose name is most like it.
        nearest: Option<String>,
    },
    /// A file named by a setting could not be read.
    #[error("setting {name} names the file {}, which cannot be read: {source}", path.display())]
    Unreadable {
        /// The setting that named the file.
        name: String,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file named by a setting is larger than anything it could sensibly hold.
    #[error("setting {name} names the file {}, which is larger than {limit} bytes", path.display())]
    TooLarge {
        /// The setting that named the file.
        name: String,
        /// The file.
        path: PathBuf,
        /// The most bytes that would have been read.
        limit: u64,
    },
}

impl Env {
    /// The environment of this process. Bytes that are not UTF-8 are replaced, so such a value fails where it is read, by name.
    pub fn process() -> Self {
        std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
            .collect()
    }

    /// These values, and `defaults` for every name not set here. Used to put mesh configuration under the environment.
    pub fn over(mut self, defaults: Env) -> Self {
        for (name, value) in defaults.vars {
            self.vars.entry(name).or_insert(value);
        }
        self
    }

    /// The text as written; `Some("")` if it was set to nothing.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.asked(|asked| asked.names.insert(name.to_owned()));
        self.vars.get(name).map(String::as_str)
    }

    /// The names that were asked for so far, in order; those of a prefix end with `*`.
    pub fn names(&self) -> Vec<String> {
        let all = |asked: &mut Asked| {
            let prefixes = asked.prefixes.iter().map(|prefix| format!("{prefix}*"));
            asked.names.iter().cloned().chain(prefixes).collect::<BTreeSet<_>>()
        };
        self.asked(all).into_iter().collect()
    }

    /// For settings that are meant for one program only, once that program has read them: all of them are settings of it.
    ///
    /// # Errors
    /// [`ConfigError::Unknown`] names the first that nobody asked for, and the one that was probably meant.
    pub fn all_known(&self) -> Result<(), ConfigError> {
        let unknown = |asked: &mut Asked| {
            let known =
                |name: &str| asked.names.contains(name) || asked.prefixes.iter().any(|p| name.starts_with(p.as_str()));
            let name = self.vars.keys().find(|name| !known(name))?.clone();
            let nearest = nearest(&name, asked.names.iter().map(String::as_str)).map(str::to_owned);
            Some(ConfigError::Unknown { name, nearest })
        };
        self.asked(unknown).map_or(Ok(()), Err)
    }

    fn asked<T>(&self, look: impl FnOnce(&mut Asked) -> T) -> T {
        look(&mut self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The text, if there is any.
    pub fn non_empty(&self, name: &str) -> Option<&str> {
        self.text(name).map(str::trim).filter(|text| !text.is_empty())
    }

    /// The text of a setting that has no default. `expected` completes "set it to …".
    ///
    /// # Errors
    /// [`ConfigError::Missing`] if it is unset or empty.
    pub fn required(&self, name: &str, expected: &str) -> Result<&str, ConfigError> {
        self.non_empty(name).ok_or_else(|| ConfigError::Missing { name: name.into(), expected: expected.into() })
    }

    /// Variables whose names begin with `prefix`, as (rest of the name, value), in order of name. For `XDS_HEADER_*`.
    pub fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.asked(|asked| asked.prefixes.insert(prefix.to_owned()));
        self.vars
            .range(prefix.to_owned()..)
            .map_while(move |(name, value)| Some((name.strip_prefix(prefix)?, value.as_str())))
            .filter(|(rest, _)| !rest.is_empty())
    }

    /// A value read by `parse`; `expected` says the accepted form.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] if `parse` gives `None`.
    pub fn read<T>(
        &self,
        name: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        match self.non_empty(name) {
            None => Ok(None),
            Some(text) => parse(text).map(Some).ok_or_else(|| invalid(name, text, expected)),
        }
    }

    /// A value whose type knows how to read itself: an address, an enum of a program.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] if the type refuses the text.
    pub fn parse<T: FromStr>(&self, name: &str, expected: &str) -> Result<Option<T>, ConfigError> {
        self.read(name, expected, |text| text.parse().ok())
    }

    /// A whole or decimal number.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] if it is not a number or lies outside `range`.
    pub fn number<T>(&self, name: &str, range: RangeInclusive<T>) -> Result<Option<T>, ConfigError>
    where
        T: FromStr + PartialOrd + fmt::Display,
    {
        let expected = format!("a number from {} to {}", range.start(), range.end());
        self.read(name, &expected, |text| text.parse().ok().filter(|number| range.contains(number)))
    }

    /// A length of time such as `10s`, `5m`, `250ms`, `24h` or `1h30m`, as Go writes them.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] if it has another form; negative lengths are refused.
    pub fn duration(&self, name: &str) -> Result<Option<Duration>, ConfigError> {
        self.read(name, "a duration such as 250ms, 10s, 5m or 24h", parse_duration)
    }

    /// A truth value, in the spellings Go accepts.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] for any other spelling.
    pub fn bool(&self, name: &str) -> Result<Option<bool>, ConfigError> {
        self.read(name, "true or false", parse_bool)
    }

    /// A count, or a percentage of something counted later (`4`, `25%`).
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] if it is neither, or the percentage is above 100.
    pub fn share(&self, name: &str) -> Result<Option<Share>, ConfigError> {
        self.read(name, "a whole number, or a percentage such as 25%", parse_share)
    }

    /// One of a few words.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`], listing the words.
    pub fn choice<T: Clone>(&self, name: &str, choices: &[(&str, T)]) -> Result<Option<T>, ConfigError> {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        self.read(name, &format!("one of {}", words.join(", ")), |text| {
            choices.iter().find(|(word, _)| *word == text).map(|(_, value)| value.clone())
        })
    }

    /// A file to read, or the content itself: certificates, tokens.
    pub fn file_or_inline(&self, name: &str) -> Option<FileOrInline> {
        self.non_empty(name).map(|text| FileOrInline::classify(text, |path| path.exists()))
    }
}

/// Only the names: values may be secrets.
impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.vars.keys()).finish()
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Env {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(vars: I) -> Self {
        let vars = vars.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { vars, asked: Arc::default() }
    }
}

/// The longest part of a value an error repeats: enough to recognise a typing mistake, not enough to fill a log.
const SHOWN: usize = 64;

fn invalid(name: &str, value: &str, expected: &str) -> ConfigError {
    let mut shown: String = value.chars().take(SHOWN).collect();
    if shown.len() < value.len() {
        shown.push('…');
    }
    ConfigError::Invalid { name: name.into(), value: shown, expected: expected.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(vars: &[(&str, &str)]) -> Env {
        vars.iter().copied().collect()
    }

    #[test]
    fn errors_name_the_setting_the_value_and_the_form() {
        let env = env(&[("SECRET_TTL", "1 day"), ("ENABLE_PROXY", "maybe"), ("PORT", "70000"), ("LOG_FORMAT", "xml")]);
        let cases = [
            (
                env.duration("SECRET_TTL").unwrap_err(),
                "setting SECRET_TTL=\"1 day\" is not usable: expected a duration such as 250ms, 10s, 5m or 24h",
            ),
            (
                env.bool("ENABLE_PROXY").unwrap_err(),
                "setting ENABLE_PROXY=\"maybe\" is not usable: expected true or false",
            ),
            (
                env.number("PORT", 1..=65535).unwrap_err(),
                "setting PORT=\"70000\" is not usable: expected a number from 1 to 65535",
            ),
            (
                env.choice("LOG_FORMAT", &[("plain", 0), ("json", 1)]).unwrap_err(),
                "setting LOG_FORMAT=\"xml\" is not usable: expected one of plain, json",
            ),
            (
                env.required("NODE_NAME", "this node's name").unwrap_err(),
                "setting NODE_NAME is required: set it to this node's name",
            ),
        ];
        for (error, expected) in cases {
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn empty_is_unset_except_as_text() {
        let env = env(&[("XDS_ADDRESS", ""), ("SECRET_TTL", " ")]);
        assert_eq!(env.text("XDS_ADDRESS"), Some(""));
        assert_eq!(env.text("CA_ADDRESS"), None);
        assert_eq!(env.non_empty("XDS_ADDRESS"), None);
        assert_eq!(env.duration("SECRET_TTL").unwrap(), None);
    }

    #[test]
    fn typed_values() {
        let env = env(&[("N", "12"), ("D", "24h"), ("B", "T"), ("S", "25%"), ("A", "10.0.0.1:80"), ("W", "json")]);
        assert_eq!(env.number("N", 0..=100u32).unwrap(), Some(12));
        assert_eq!(env.duration("D").unwrap(), Some(Duration::from_secs(86_400)));
        assert_eq!(env.bool("B").unwrap(), Some(true));
        assert_eq!(env.share("S").unwrap(), Some(Share::Percent(25)));
        assert_eq!(
            env.parse::<std::net::SocketAddr>("A", "address:port").unwrap(),
            Some("10.0.0.1:80".parse().unwrap())
        );
        assert_eq!(env.choice("W", &[("plain", 0), ("json", 1)]).unwrap(), Some(1));
    }

    #[test]
    fn long_values_are_shortened() {
        let env = env(&[("D", &"é".repeat(500))]);
        assert!(env.duration("D").unwrap_err().to_string().len() < 300);
    }

    #[test]
    fn prefixes_and_layers() {
        let upper = env(&[("XDS_HEADER_A", "1"), ("XDS_HEADER_", "none"), ("XDS_HEADERS", "no"), ("XDS", "no")]);
        let both = upper.over(env(&[("XDS_HEADER_A", "lower"), ("XDS_HEADER_B", "2")]));
        assert_eq!(both.with_prefix("XDS_HEADER_").collect::<Vec<_>>(), [("A", "1"), ("B", "2")]);
    }

    #[test]
    fn what_was_asked_for_is_known_and_nothing_else() {
        for (set, expected) in [
            ("SECRET_TTL", None),
            ("XDS_HEADER_X", None),
            ("SECRET_TLL", Some("there is no setting SECRET_TLL; did you mean SECRET_TTL?")),
            ("BOGUS", Some("there is no setting BOGUS")),
        ] {
            let env = env(&[(set, "1h")]);
            // What a program reads, lower layers included.
            let layered = env.clone().over(Env::default());
            let _ = (layered.duration("SECRET_TTL"), layered.with_prefix("XDS_HEADER_").count());
            assert_eq!(env.all_known().err().map(|error| error.to_string()).as_deref(), expected, "{set}");
            assert_eq!(env.names(), ["SECRET_TTL", "XDS_HEADER_*"]);
        }
    }

    #[test]
    fn debug_hides_values() {
        assert_eq!(format!("{:?}", env(&[("TOKEN", "secret")])), "{\"TOKEN\"}");
    }
}
