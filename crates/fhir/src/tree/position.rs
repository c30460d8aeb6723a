//! Offsets to lines and columns, in time that does not grow with the document after the first question.

use std::sync::OnceLock;

use super::error::Position;

const BLOCK: usize = 4096;

/// The position of the start of every block, counted when first asked.
#[derive(Default)]
pub(super) struct Positions(OnceLock<Box<[Position]>>);

impl Positions {
    /// The position of an offset; of the end, if it lies behind the end.
    pub(super) fn of(&self, bytes: &[u8], offset: usize) -> Position {
        let offset = offset.min(bytes.len());
        let starts = self.0.get_or_init(|| {
            let mut position = START;
            bytes
                .chunks(BLOCK)
                .map(|block| {
                    let start = position;
                    position = advance(position, block);
                    start
                })
                .collect()
        });
        let block = (offset / BLOCK).min(starts.len().saturating_sub(1));
        let start = starts.get(block).copied().unwrap_or(START);
        advance(start, bytes.get(block * BLOCK..offset).unwrap_or_default())
    }
}

/// The position of an offset, counted from the start.
pub(super) fn position(bytes: &[u8], offset: usize) -> Position {
    advance(START, bytes.get(..offset).unwrap_or(bytes))
}

const START: Position = Position { line: 1, column: 1 };

fn advance(from: Position, bytes: &[u8]) -> Position {
    let lines = count(memchr::memchr_iter(b'\n', bytes).count());
    let last = memchr::memrchr(b'\n', bytes).map_or(bytes, |at| bytes.get(at + 1..).unwrap_or_default());
    // Every byte of UTF-8 but the continuation bytes starts a character.
    let characters = count(last.iter().filter(|&&byte| byte & 0xc0 != 0x80).count());
    Position {
        line: from.line.saturating_add(lines),
        column: if lines == 0 { from.column } else { 1 }.saturating_add(characters),
    }
}

fn count(counted: usize) -> u32 {
    u32::try_from(counted).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_across_blocks() {
        let text = format!("{}\n{}ü€😀x", "é\n".repeat(3000), "añ".repeat(5000));
        let positions = Positions::default();
        for (offset, _) in text.char_indices().step_by(97).chain([(0, 'x'), (text.len() - 1, 'x')]) {
            let before = &text[..offset];
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            let expected = Position { line: count(line), column: count(column) };
            assert_eq!(positions.of(text.as_bytes(), offset), expected);
            assert_eq!(position(text.as_bytes(), offset), expected);
        }
        assert_eq!(Positions::default().of(b"", 7), START);
    }
}
