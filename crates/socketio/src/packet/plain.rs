//! What stands in a JSON string as it is: all but quotes, backslashes and control characters.

const ONES: u64 = u64::from_ne_bytes([1; 8]);
const HIGH: u64 = ONES << 7;

/// How many bytes at the front of `text` stand as they are.
pub(super) fn prefix(text: &[u8]) -> usize {
    let (chunks, tail) = text.as_chunks::<16>();
    for (at, chunk) in chunks.iter().enumerate() {
        // Without an early end: all of them at once.
        if chunk.iter().fold(false, |found, &byte| found | is_special(byte)) {
            return at * 16 + within(chunk);
        }
    }
    chunks.len() * 16 + within(tail)
}

/// Whether all of `text` stands as it is.
pub(super) fn is_plain(text: &str) -> bool {
    prefix(text.as_bytes()) == text.len()
}

/// The same for a few bytes.
fn within(few: &[u8]) -> usize {
    let (words, tail) = few.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let found = special(u64::from_le_bytes(*word));
        if found != 0 {
            return at * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    words.len() * 8 + tail.iter().position(|&byte| is_special(byte)).unwrap_or(tail.len())
}

fn is_special(byte: u8) -> bool {
    (byte == b'"') | (byte == b'\\') | (byte < b' ')
}

/// The lowest bit that is set is the highest of the first byte that is special. Nothing is said of those after it.
fn special(word: u64) -> u64 {
    // A byte of less than 0x80 borrows from its highest bit exactly if it is less than what is taken from it, and no byte
    // below it has borrowed.
    let quote = (word ^ (ONES * b'"' as u64)).wrapping_sub(ONES);
    let backslash = (word ^ (ONES * b'\\' as u64)).wrapping_sub(ONES);
    let control = word.wrapping_sub(ONES * b' ' as u64);
    (quote | backslash | control) & !word & HIGH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_in_every_place() {
        for length in (0..18).chain([63, 64, 65, 71, 72, 100]) {
            for byte in 0..=u8::MAX {
                for around in [b'a', 0x7f, 0xc3, b' ', b'!', b'#', b']', b'['] {
                    for at in 0..length {
                        let mut text = vec![around; length];
                        text[at] = byte;
                        let expected = if is_special(byte) { at } else { length };
                        assert_eq!(
                            prefix(&text),
                            expected,
                            "{byte:#x} at {at} of {length} among {around:#x}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn the_first_of_many() {
        let special = [b'"', b'\\', 0, 0x1f];
        for length in [8, 9, 64, 70, 72, 130] {
            for (first, second) in
                (0..length).flat_map(|first| (first..length).map(move |second| (first, second)))
            {
                for (one, other) in special.into_iter().flat_map(|one| special.map(|other| (one, other))) {
                    let mut text = vec![b'!'; length];
                    (text[second], text[first]) = (other, one);
                    assert_eq!(prefix(&text), first);
                }
            }
        }
    }
}
