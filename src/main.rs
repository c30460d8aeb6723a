//! The `sluice` command: parse, run, exit code.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use sluice::cli::{Cli, Exit, Failure};

fn main() -> ExitCode {
    let exit = match Cli::try_parse() {
        Ok(cli) => cli.run(io::stdin(), &mut io::stdout().lock()).unwrap_or_else(|failure| told(&failure)),
        Err(error) => {
            // Help and version are asked for; everything else is bad usage. If nobody reads it, nothing is lost.
            let _ = error.print();
            if error.use_stderr() { Exit::Usage } else { Exit::Fine }
        }
    };
    ExitCode::from(exit.code())
}

/// Says on stderr why a command could not run.
fn told(failure: &Failure) -> Exit {
    if failure.is_broken_pipe() {
        // Whoever read our lines has seen enough, as `head` does.
        return Exit::Fine;
    }
    // Without stderr there is still the exit code.
    let _ = writeln!(io::stderr(), "sluice: {failure}");
    failure.exit()
}
