//! What a program says of itself on `--help` (pure).

use crate::config::Env;

/// Terminals are at least this wide.
const COLUMNS: usize = 80;

/// How a program is called, and the settings it reads: `usage`, then the names that were asked of `read`, which its configuration has
/// been read from.
pub fn usage(usage: &str, read: &Env) -> String {
    let mut text = format!("{usage}\n\nSettings are environment variables; docs/operations.md explains each:\n");
    let mut column = COLUMNS;
    for name in read.names() {
        if column + 1 + name.len() > COLUMNS {
            text.push_str("\n ");
            column = 1;
        }
        text.push(' ');
        text.push_str(&name);
        column += 1 + name.len();
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_listed_in_80_columns() {
        let env = Env::default();
        for number in 0..30 {
            env.text(&format!("A_SETTING_{number:02}"));
        }
        let text = usage("Usage: it", &env);
        assert!(text.starts_with("Usage: it\n\n"));
        assert_eq!(text.matches("A_SETTING_").count(), 30);
        assert!(text.lines().all(|line| line.len() <= COLUMNS), "{text}");
    }
}
