//! One text of a policy, and its wire form.

use std::sync::Arc;

use mesh_proto::policy as pb;
use pb::string_match::MatchType;

/// `istio.security.StringMatch`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StringMatch {
    /// Equal.
    Exact(Arc<str>),
    /// Begins with.
    Prefix(Arc<str>),
    /// Ends with.
    Suffix(Arc<str>),
    /// Not empty.
    Presence,
}

impl StringMatch {
    /// Whether a text is one that is meant.
    pub fn matches(&self, text: &str) -> bool {
        self.matches_bytes(text.as_bytes())
    }

    /// [`Self::matches`] of what need not be text.
    pub fn matches_bytes(&self, bytes: &[u8]) -> bool {
        match self {
            Self::Exact(x) => x.as_bytes() == bytes,
            Self::Prefix(x) => bytes.starts_with(x.as_bytes()),
            Self::Suffix(x) => bytes.ends_with(x.as_bytes()),
            Self::Presence => !bytes.is_empty(),
        }
    }
}

/// None for a kind that this version does not know.
pub(crate) fn read(s: pb::StringMatch) -> Option<StringMatch> {
    Some(match s.match_type? {
        MatchType::Exact(x) => StringMatch::Exact(x.into()),
        MatchType::Prefix(x) => StringMatch::Prefix(x.into()),
        MatchType::Suffix(x) => StringMatch::Suffix(x.into()),
        MatchType::Presence(()) => StringMatch::Presence,
    })
}

pub(crate) fn write(s: &StringMatch) -> pb::StringMatch {
    pb::StringMatch {
        match_type: Some(match s {
            StringMatch::Exact(x) => MatchType::Exact(x.to_string()),
            StringMatch::Prefix(x) => MatchType::Prefix(x.to_string()),
            StringMatch::Suffix(x) => MatchType::Suffix(x.to_string()),
            StringMatch::Presence => MatchType::Presence(()),
        }),
    }
}
