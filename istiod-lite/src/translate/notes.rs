//! What is noted while the rules of an AuthorizationPolicy are translated, and what its author is told of it.

use mesh_model::policy::Action;

use super::condition::Condition;

/// Who evaluates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum At {
    /// It knows who calls, from where, and to which port.
    #[default]
    Ztunnel,
    /// It knows the request, too.
    Waypoint,
}

/// What has to be said about a policy.
#[derive(Default)]
pub(super) struct Notes {
    /// Who evaluates it.
    pub(super) at: At,
    /// What that one cannot decide on, in order, each once.
    pub(super) http: Vec<String>,
    /// Rules it was met in.
    pub(super) rules: Vec<usize>,
    /// Those of them of which nothing else is left.
    pub(super) nothing_left: Vec<usize>,
    /// Principals were written as SPIFFE ids.
    pub(super) spiffe: bool,
}

impl Notes {
    /// What its author is told, where ztunnel evaluates it.
    pub(super) fn condition(self, action: &Action) -> Condition {
        let mut message = String::new();
        if !self.http.is_empty() {
            let effect = match action {
                Action::Allow => self.left_out(),
                _ => self.denies_more(),
            };
            let attributes = self.http.join(", ");
            message = format!("ztunnel does not support HTTP attributes (found: {attributes}). {effect}");
        }
        if self.spiffe {
            let note = "principals are written without spiffe://, which was taken off";
            message = if message.is_empty() { note.to_owned() } else { format!("{message}. Also: {note}") };
        }
        match (self.http.is_empty(), self.spiffe) {
            (true, false) => Condition::accepted(),
            (true, true) => Condition { message: format!("attached to ztunnel; {message}"), ..Condition::accepted() },
            (false, _) => Condition::unsupported(true, message),
        }
    }

    fn left_out(&self) -> String {
        let (are, them, they) = match self.rules.len() {
            1 => ("is", "it", "it allows"),
            _ => ("are", "them", "they allow"),
        };
        format!(
            "{} {are} left out, because ztunnel cannot tell whether a connection meets {them}: {they} nothing. To decide on \
             HTTP, attach the policy to a waypoint with targetRefs; to decide here, use only identities, namespaces, \
             addresses and ports",
            names("rules", &self.rules)
        )
    }

    fn denies_more(&self) -> String {
        let mut effects = Vec::new();
        if !self.nothing_left.is_empty() {
            let (has, it) = if self.nothing_left.len() == 1 { ("has", "it denies") } else { ("have", "they deny") };
            effects.push(format!(
                "{} {has} nothing else that ztunnel can decide on, so {it} EVERY connection to the workloads of this \
                 policy",
                names("rules", &self.nothing_left)
            ));
        }
        let partly: Vec<_> = self.rules.iter().filter(|i| !self.nothing_left.contains(i)).copied().collect();
        if !partly.is_empty() {
            effects.push(format!(
                "{} without these parts, so that more connections are denied than is written, not fewer",
                match partly.len() {
                    1 => format!("{} is enforced", names("rules", &partly)),
                    _ => format!("{} are enforced", names("rules", &partly)),
                }
            ));
        }
        format!(
            "{}. This holds until a waypoint serves the policy (attach it with targetRefs). Until then, delete the rule, \
             or say whom it is about by identities, namespaces, addresses and ports",
            effects.join("; ")
        )
    }
}

/// `rules[0], rules[1] and rules[4]`.
pub(super) fn names(field: &str, items: &[usize]) -> String {
    let names: Vec<String> = items.iter().map(|i| format!("{field}[{i}]")).collect();
    match names.split_last() {
        Some((last, before)) if !before.is_empty() => format!("{} and {last}", before.join(", ")),
        _ => names.concat(),
    }
}
