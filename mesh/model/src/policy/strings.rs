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

/// None for a kind that this version does not know.
pub(super) fn read(s: pb::StringMatch) -> Option<StringMatch> {
    Some(match s.match_type? {
        MatchType::Exact(x) => StringMatch::Exact(x.into()),
        MatchType::Prefix(x) => StringMatch::Prefix(x.into()),
        MatchType::Suffix(x) => StringMatch::Suffix(x.into()),
        MatchType::Presence(()) => StringMatch::Presence,
    })
}

pub(super) fn write(s: &StringMatch) -> pb::StringMatch {
    pb::StringMatch {
        match_type: Some(match s {
            StringMatch::Exact(x) => MatchType::Exact(x.to_string()),
            StringMatch::Prefix(x) => MatchType::Prefix(x.to_string()),
            StringMatch::Suffix(x) => MatchType::Suffix(x.to_string()),
            StringMatch::Presence => MatchType::Presence(()),
        }),
    }
}
