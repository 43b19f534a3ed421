//! Messages that differ by a number only, to see whether their replies come in order.

use std::collections::VecDeque;

use anyhow::{Context, ensure};

/// How many digits a number has; what is in its place in a template.
const DIGITS: usize = 8;
const PLACE: &str = "00000000";

/// A message with a place for a number.
pub(crate) struct Numbered {
    template: Vec<u8>,
    at: usize,
}

impl Numbered {
    /// The number replaces the first eight zeros in a row.
    pub(crate) fn new(template: &str) -> anyhow::Result<Self> {
        let at = template.find(PLACE).context("no place for a number")?;
        Ok(Self { template: template.as_bytes().to_vec(), at })
    }

    /// A text of 64 bytes with such a place.
    pub(crate) fn text() -> String {
        format!("{PLACE}{}", "x".repeat(64 - DIGITS))
    }

    pub(crate) fn with(&self, number: u32) -> Vec<u8> {
        let mut bytes = self.template.clone();
        let mut rest = number;
        for digit in bytes[self.at..self.at + DIGITS].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        bytes
    }

    /// The number in `packet`; None if it is not this message.
    pub(crate) fn number_of(&self, packet: &[u8]) -> Option<u32> {
        let end = self.at + DIGITS;
        let same = packet.len() == self.template.len()
            && packet[..self.at] == self.template[..self.at]
            && packet[end..] == self.template[end..];
        let digits = packet.get(self.at..end).filter(|_| same)?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    }
}

/// The numbers that were sent and have not been answered, oldest first.
#[derive(Default)]
pub(crate) struct InFlight(VecDeque<u32>);

impl InFlight {
    pub(crate) fn sent(&mut self, number: u32) {
        self.0.push_back(number);
    }

    /// Whether this reply has overtaken an earlier one.
    pub(crate) fn answered(&mut self, number: u32) -> anyhow::Result<bool> {
        let found = self.0.iter().position(|sent| *sent == number);
        ensure!(found.is_some(), "message {number} was answered twice, or never sent");
        let position = found.unwrap_or_default();
        self.0.remove(position);
        Ok(position > 0)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_comes_back() {
        let message = Numbered::new(&format!(r#"42["echo","{}"]"#, Numbered::text())).expect("a place");
        for number in [0, 7, 12_345_678] {
            assert_eq!(message.number_of(&message.with(number)), Some(number));
        }
        assert_eq!(message.number_of(br#"42["echo","00000000"]"#), None);
        let mut other = message.with(3);
        let last = other.len() - 3;
        other[last] = b'y';
        assert_eq!(message.number_of(&other), None);
    }

    #[test]
    fn a_reply_that_overtakes_is_seen_and_a_doubled_one_refused() {
        let mut sent = InFlight::default();
        (0..4).for_each(|number| sent.sent(number));
        let overtakes = [0, 2, 1, 3].map(|number| sent.answered(number).expect("sent"));
        assert_eq!(overtakes, [false, true, false, false]);
        assert!(sent.is_empty());
        assert!(sent.answered(3).is_err());
    }
}
