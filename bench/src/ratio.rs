//! The middle and the ends of several measurements of one ratio.

use std::fmt;

pub(crate) struct Spread {
    pub(crate) median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        let last = values.len().saturating_sub(1);
        // Of an even number, the lower one of the two in the middle.
        Self { median: at(last / 2), min: at(0), max: at(last) }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match f.precision() {
            None => write!(f, "median {:.3}, min {:.3}, max {:.3}", self.median, self.min, self.max),
            Some(digits) => {
                let (median, min, max) = (self.median, self.min, self.max);
                let text = format!("{median:.digits$} ({min:.digits$}-{max:.digits$})");
                write!(f, "{text:>width$}", width = f.width().unwrap_or(0))
            }
        }
    }
}
