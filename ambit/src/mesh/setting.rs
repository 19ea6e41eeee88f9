//! Settings of the mesh's programs that the user gives on the command line.
use mesh_runtime::config::{ConfigError, Env};
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

impl Setting {
    /// Whether it is one of the program's, `ztunnel-node1` for example.
    pub(crate) fn is_for(&self, program: &str) -> bool {
        self.program == program || PROGRAMS.contains(&self.program.as_str()) && is_of(program, &self.program)
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
    all.iter().filter(move |setting| setting.is_for(program)).map(|s| (s.name.clone(), s.value.clone()))
}

/// Whether the programs can be started with these: each has the setting, and can use the value. Better said at once than by a program
/// that ends again and again.
///
/// # Errors
/// Names the setting, and what to write instead.
pub(crate) fn check(all: &[Setting], secret_ttl: Option<&str>) -> Result<(), String> {
    for setting in all {
        let program = setting.program.as_str();
        let env: Env = of(all, program).collect();
        check_one(program, &env).map_err(|error| format!("--set {setting}: {error}"))?;
    }
    let ttl: Env = secret_ttl.map(|ttl| ("SECRET_TTL", ttl)).into_iter().collect();
    check_one("ztunnel", &ttl).map_err(|error| format!("--secret-ttl: {error}"))
}

fn check_one(program: &str, env: &Env) -> Result<(), ConfigError> {
    match PROGRAMS.iter().find(|kind| is_of(program, kind)) {
        Some(&"ztunnel") => ztunnel::config::check(env).map(drop),
        Some(&"istiod-lite") => istiod_lite::Config::check(env).map(drop),
        // There is no other: a setting of another program cannot be made.
        _ => node_agent::config::check(env).map(drop),
    }
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
    fn programs_are_not_started_with_what_they_cannot_use() {
        for (text, expected) in [
            ("ztunnel:XDS_ON_DEMAND=false", None),
            ("ztunnel-node1:ISTIO_META_ANYTHING=1", None),
            ("ztunnel:RUST_LOG=debug", None),
            ("node-agent:EXCLUDE_NAMESPACES=a", None),
            ("istiod-lite:TRUST_DOMAIN=example.org", None),
            ("ztunnel:BOGUS=1", Some("there is no setting BOGUS")),
            ("ztunnel:XDS_ONDEMAND=true", Some("did you mean XDS_ON_DEMAND?")),
            ("ztunnel-node1:SECRET_TTL=10x", Some("SECRET_TTL=\"10x\" is not usable")),
            ("node-agent:XDS_ON_DEMAND=true", Some("there is no setting XDS_ON_DEMAND")),
            ("istiod-lite:HEALTH_PORT=x", Some("HEALTH_PORT")),
            ("istiod-lite:LOG_FORMAT=xml", Some("LOG_FORMAT")),
        ] {
            let error = check(&[text.parse().unwrap()], None).err();
            assert_eq!(error.is_some(), expected.is_some(), "{text}: {error:?}");
            assert!(error.is_none_or(|e| e.contains(expected.unwrap()) && e.starts_with("--set ")), "{text}");
        }
        assert!(check(&[], Some("10s")).is_ok());
        assert!(check(&[], Some("10x")).unwrap_err().starts_with("--secret-ttl: setting SECRET_TTL"));
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
