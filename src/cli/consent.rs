//! `sluice consent decide`: one decision a line.

use std::io::{self, BufRead, Write};

use bytes::Bytes;

use crate::consent::decide::Settings;
use crate::consent::exchange;

/// Longest line that is read; a longer one is answered as unreadable.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// Answers each line of `input` with one on `output`, in order; empty lines are passed over. Every line has an answer,
/// so the only error is that of reading or writing itself.
pub fn decide(mut input: impl BufRead, mut output: impl Write) -> io::Result<()> {
    loop {
        let mut line = Vec::new();
        if io::Read::take(&mut input, LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
            return output.flush();
        }
        if line.len() as u64 == LINE_BYTES_MAX && line.last() != Some(&b'\n') {
            // What was read is no whole line, so it can't be parsed: it is answered as such, and the rest is skipped.
            skip_line(&mut input)?;
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
