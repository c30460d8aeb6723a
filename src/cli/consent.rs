//! `sluice consent decide`: one decision a line.

use std::io::{self, BufRead, Write};

use bytes::Bytes;

use super::{Exit, Failure};
use crate::consent::decide::Settings;
use crate::consent::exchange;

/// Longest line that is read; a longer one is answered as unreadable.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// What is asked of Consents.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Decides by the Consents that each line holds
    #[command(
        after_help = "NDJSON in, one question a line: {id, consents, request, resource}; NDJSON out, in the same \
        order: {id, decision, obligations, reason}. What can't be read leads to deny or undecidable, never to an error.\n\n\
        Example:\n  sluice consent decide < questions.ndjson"
    )]
    Decide {
        /// `-`: standard input, which is also the default
        #[arg(value_parser = ["-"], hide_possible_values = true)]
        input: Option<String>,
    },
}

/// Runs it.
///
/// # Errors
/// Streams that break.
pub fn run(command: &Command, input: impl BufRead, output: impl Write) -> Result<Exit, Failure> {
    let Command::Decide { .. } = command;
    decide(input, output)?;
    Ok(Exit::Fine)
}

/// Answers each line of `input` with one on `output`, in order; empty lines are passed over. Every line has an answer,
/// so the only error is that of reading or writing itself.
pub fn decide(mut input: impl BufRead, mut output: impl Write) -> io::Result<()> {
    loop {
        let mut line = Vec::new();
        if io::Read::take(&mut input, LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
            return output.flush();
        }
        if line.len() as u64 == LINE_BYTES_MAX && line.last() != Some(&b'\n') {
            // What was read is no whole line, even if it happens to be whole JSON: it is answered as one that can't be
            // read, and the rest is skipped.
            skip_line(&mut input)?;
            line = b"{".to_vec();
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        output.write_all(&exchange::answer(Settings::default(), Bytes::from(line)))?;
        output.write_all(b"\n")?;
        output.flush()?;
    }
}

fn skip_line(input: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = input.fill_buf()?;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(buffer.len(), |at| at + 1);
        input.consume(used);
        if end.is_some() || used == 0 {
            return Ok(());
        }
    }
}
