//! `istiod-lite [DIR...]`: the control plane.

use std::process::ExitCode;

fn main() -> ExitCode {
    istiod_lite::app::main(std::env::args().skip(1))
}
