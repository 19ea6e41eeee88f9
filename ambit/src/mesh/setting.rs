//! Settings of the mesh's programs that the user gives on the command line.
use std::ffi::OsString;
use std::fmt;
use std::str::FromStr;

/// What programs are called, without their node.
const PROGRAMS: [&str; 3] = ["istiod-lite", "ztunnel", "node-agent"];

/// An environment variable of one program, or of all of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    program: String,
    name: String,
    value: String,
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || format!("`{text}` is not PROGRAM:NAME=VALUE, such as ztunnel:XDS_ON_DEMAND=true");
        let (program, rest) = text.split_once(':').ok_or_else(form)?;
        let (name, value) = rest.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(form)?;
        if !PROGRAMS.iter().any(|kind| is_of(program, kind)) {
            return Err(format!("there is no program {program}; there are: {}", PROGRAMS.join(", ")));
        }
        Ok(Setting { program: program.into(), name: name.into(), value: value.into() })
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}={}", self.program, self.name, self.value)
    }
}

/// Whether a program is of this kind, or is the very one: `ztunnel-node1` is a `ztunnel`.
fn is_of(program: &str, kind: &str) -> bool {
    program.strip_prefix(kind).is_some_and(|node| node.is_empty() || node.starts_with('-'))
}

/// Those of a program, in the order given.
pub(crate) fn of<'a>(all: &'a [Setting], program: &'a str) -> impl Iterator<Item = (String, String)> + 'a {
    let meant = move |s: &&Setting| {
        s.program == program || PROGRAMS.contains(&s.program.as_str()) && is_of(program, &s.program)
    };
    all.iter().filter(meant).map(|s| (s.name.clone(), s.value.clone()))
}

/// As arguments of `ambit`.
pub(crate) fn arguments(all: &[Setting]) -> impl Iterator<Item = OsString> {
    all.iter().flat_map(|s| ["--set".into(), s.to_string().into()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_a_setting_is_for() {
        // Setting, program, the value it then has of X.
        for (text, program, expected) in [
            ("ztunnel:X=1", "ztunnel-node1", Some("1")),
            ("ztunnel:X=a=b:c", "ztunnel-node1", Some("a=b:c")),
            ("ztunnel:X=", "ztunnel-node1", Some("")),
            ("ztunnel-node1:X=1", "ztunnel-node1", Some("1")),
            ("ztunnel-node1:X=1", "ztunnel-node10", None),
            ("ztunnel-node1:X=1", "ztunnel-node1-east", None),
            ("ztunnel-node1:X=1", "ztunnel-node2", None),
            ("istiod-lite:X=1", "istiod-lite", Some("1")),
            ("istiod-lite:X=1", "node-agent-node1", None),
        ] {
            let setting: Setting = text.parse().unwrap();
            let all = [setting];
            let found = of(&all, program).last();
            assert_eq!(found.as_ref().map(|(_, value)| value.as_str()), expected, "{text} for {program}");
            // What is handed to the inside is what was given.
            assert_eq!(arguments(&all).last().unwrap(), text);
        }
    }

    #[test]
    fn what_is_no_setting_says_so() {
        for (text, expected) in [
            ("ztunnel", "not PROGRAM:NAME=VALUE"),
            ("ztunnel:X", "not PROGRAM:NAME=VALUE"),
            ("ztunnel:=1", "not PROGRAM:NAME=VALUE"),
            ("istiod:X=1", "there is no program istiod"),
            ("ztunnels:X=1", "there is no program ztunnels"),
        ] {
            let error = text.parse::<Setting>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
