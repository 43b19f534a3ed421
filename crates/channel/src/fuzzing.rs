//! What must hold for anything a worker writes to its channel, as functions that panic where it does not. Driven by the
//! fuzz targets of `fuzz/`, and by the unit test below with the inputs kept in `tests/corpus`.

use crate::native::{ToSupervisor, ToWorker, Welcome};
use crate::node::{FromWorker, Serialization, frames};

/// A frame may have this many bytes: few, so that the limit is met.
const LIMIT: usize = 4096;

/// A stream from a Node worker: the same messages come out however it is cut. The first byte says how to cut.
pub fn node(serialization: Serialization, input: &[u8]) {
    let (&step, input) = input.split_first().unwrap_or((&1, input));
    let whole: Vec<FromWorker> = frames(serialization, LIMIT, [input]);
    let pieces = frames(serialization, LIMIT, input.chunks(usize::from(step).max(1)));
    assert_eq!(whole, pieces);
}

/// A packet of a native worker: what is read is written as something that is read the same.
pub fn native(input: &[u8]) {
    fn both<T: serde::de::DeserializeOwned + serde::Serialize + PartialEq + std::fmt::Debug>(input: &[u8]) {
        let Ok(message) = serde_json::from_slice::<T>(input) else { return };
        let text = serde_json::to_vec(&message).unwrap_or_default();
        assert_eq!(serde_json::from_slice::<T>(&text).ok().as_ref(), Some(&message));
    }
    both::<ToSupervisor>(input);
    both::<ToWorker>(input);
    both::<Welcome>(input);
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn the_corpora_hold() {
        for (name, target) in [
            ("node-advanced", (|input| node(Serialization::Advanced, input)) as fn(&[u8])),
            ("node-json", |input| node(Serialization::Json, input)),
            ("native", native),
        ] {
            let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(name);
            let mut count = 0;
            for entry in std::fs::read_dir(folder).unwrap() {
                target(&std::fs::read(entry.unwrap().path()).unwrap());
                count += 1;
            }
            assert!(count > 0, "{name}");
        }
    }
}
