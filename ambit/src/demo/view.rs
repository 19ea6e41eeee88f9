//! How the demo looks: quiet lines, colours only in a terminal that wants them.
#![allow(clippy::print_stdout, reason = "this is what the demo shows its user")]
use crate::status::Width;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

/// Prints the demo.
pub(super) struct View {
    colours: bool,
    terminal: bool,
}

/// A step under way.
pub(super) struct Step<'a> {
    view: &'a View,
    title: String,
    began: Instant,
}

const GREEN: &str = "32";
const RED: &str = "31";
const DIM: &str = "2";
const BOLD: &str = "1";

/// A claim, and what was observed.
pub(super) type Row = Vec<String>;

pub(super) fn row(claim: &str, observed: String) -> Row {
    vec![claim.to_owned(), observed]
}

impl View {
    /// Looks at standard output and at NO_COLOR.
    pub(super) fn new(no_color: bool) -> Self {
        let terminal = std::io::stdout().is_terminal();
        let unwanted = no_color || std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        View { colours: terminal && !unwanted, terminal }
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(super) fn title(&self, text: &str) {
        println!("{}\n", self.paint(BOLD, text));
    }

    /// Announces a step; in a terminal its line is replaced when it is done.
    pub(super) fn begin(&self, title: &str) -> Step<'_> {
        if self.terminal {
            print!("  {} {title} ...", self.paint(DIM, "·"));
            // A terminal that is gone shows nothing anyway.
            let _ = std::io::stdout().flush();
        }
        Step { view: self, title: title.to_owned(), began: Instant::now() }
    }

    pub(super) fn failed(&self, why: &str) {
        self.clear();
        println!("  {} {why}", self.paint(RED, "✗"));
    }

    /// Words of a program, indented.
    pub(super) fn quote(&self, who: &str, lines: &[String]) {
        for line in lines {
            println!("        {} {line}", self.paint(DIM, &format!("{who} │")));
        }
    }

    pub(super) fn table(&self, head: &[&str], rows: Vec<Row>) {
        let mut text = String::from("\n");
        crate::status::table(&mut text, head, rows, Width::Narrow);
        print!("{text}");
    }

    pub(super) fn next(&self, kept: bool, folder: &Path, took: Duration) {
        println!("{}", self.paint(GREEN, &format!("Everything claimed was observed, in {:.1} s.", took.as_secs_f64())));
        if kept {
            println!("\nIt keeps running. Try:");
            println!("  ambit status --name demo");
            println!("  ambit exec --name demo -n shop storefront -- ambit tool http-get http://orders.shop/");
            println!("  ambit logs --name demo -f ztunnel-node2");
            println!("  edit {} and watch what happens", folder.display());
            println!("  ambit down --name demo");
        } else {
            println!(
                "\nTry next: `ambit demo --keep` to look around in it, or `ambit up -f examples/hello` for your own pods."
            );
        }
    }

    fn clear(&self) {
        if self.terminal {
            print!("\r\x1b[2K");
        }
    }
}

impl Step<'_> {
    /// It went as claimed.
    pub(super) fn done(self, observed: &str) {
        let view = self.view;
        view.clear();
        let took = format!("{:.1}s", self.began.elapsed().as_secs_f64());
        println!("  {} {} {}", view.paint(GREEN, "✓"), self.title, view.paint(DIM, &took));
        println!("        {observed}");
    }
}
