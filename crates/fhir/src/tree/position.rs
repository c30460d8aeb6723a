//! Offsets to lines and columns, in time that does not grow with the document after the first question.

use std::ops::Range;
use std::sync::OnceLock;

use super::error::Position;

const BLOCK: usize = 4096;

/// How the offsets of one document become positions.
#[derive(Default)]
pub(super) struct Positions {
    /// The position of the start of every block, counted when first asked.
    starts: OnceLock<Box<[Position]>>,
    /// Of a document that stands for another: where in that one the values that start here stand; ascending.
    elsewhere: Box<[(u32, Position)]>,
}

impl Positions {
    /// Of a document that stands for another: by ascending offsets, where in that one the values stand.
    pub(super) fn elsewhere(places: Vec<(u32, Position)>) -> Self {
        Self { starts: OnceLock::new(), elsewhere: places.into() }
    }

    /// Those of a part of the document.
    pub(super) fn part(&self, span: Range<usize>) -> Self {
        let at = |offset: usize| self.elsewhere.partition_point(|(start, _)| (*start as usize) < offset);
        let inside = self.elsewhere.get(at(span.start)..at(span.end)).unwrap_or_default();
        // Inside of the span, so that nothing is below its start.
        let moved = inside.iter().map(|(start, position)| (start - count(span.start), *position)).collect();
        Self::elsewhere(moved)
    }

    /// The position of an offset; of the end, if it lies behind the end.
    pub(super) fn of(&self, bytes: &[u8], offset: usize) -> Position {
        if !self.elsewhere.is_empty() {
            let place = self.elsewhere.partition_point(|(start, _)| *start as usize <= offset).saturating_sub(1);
            return self.elsewhere.get(place).map_or(START, |(_, position)| *position);
        }
        let offset = offset.min(bytes.len());
        let starts = self.starts.get_or_init(|| {
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
pub(crate) fn position(bytes: &[u8], offset: usize) -> Position {
    advance(START, bytes.get(..offset).unwrap_or(bytes))
}

const START: Position = Position { line: 1, column: 1 };

/// The position behind these bytes, which start at `from`.
pub(crate) fn advance(from: Position, bytes: &[u8]) -> Position {
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
