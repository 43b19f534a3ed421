//! What is printed, and the page with a plot of every round.

use std::fmt::Write as _;

use super::Measured;
use crate::ratio::Spread;

/// One server under one load, round by round.
pub(super) struct Row {
    label: &'static str,
    values: Vec<f64>,
    failed: usize,
    /// The most of any round.
    overtaken: Option<f64>,
    kernel: Vec<f64>,
    generator: f64,
    steal: f64,
}

impl Row {
    pub(super) fn new(label: &'static str) -> Row {
        let (values, kernel) = (Vec::new(), Vec::new());
        Row { label, values, failed: 0, overtaken: None, kernel, generator: 0.0, steal: 0.0 }
    }

    pub(super) fn push(&mut self, measured: &Measured) {
        self.values.push(measured.value);
        self.failed += measured.failed;
        self.overtaken = match (self.overtaken, measured.overtaken) {
            (Some(most), Some(share)) => Some(most.max(share)),
            (most, share) => most.or(share),
        };
        self.kernel.push(measured.kernel);
        self.generator = self.generator.max(measured.generator);
        self.steal = self.steal.max(measured.steal);
    }

    /// How many times `self` the first server is, of each round on its own: both were measured within a minute.
    fn ratio(&self, first: &Row) -> Spread {
        Spread::of(first.values.iter().zip(&self.values).map(|(first, own)| first / own).collect())
    }

    /// What casts doubt on the figures, or on the server.
    fn remarks(&self) -> String {
        let mut remarks = Vec::new();
        if self.failed > 0 {
            remarks.push(format!("{} failed", self.failed));
        }
        if let Some(share) = self.overtaken.filter(|share| *share > 0.0) {
            remarks.push(format!("{:.1} % of replies overtook", share * 100.0));
        }
        remarks.join(", ")
    }
}

/// All loads so far.
#[derive(Default)]
pub(super) struct Report {
    sections: String,
}

/// The plots, in pixels.
const WIDTH: f64 = 400.0;

impl Report {
    /// Prints one load's figures and keeps them for the page.
    pub(super) fn add(&mut self, name: &str, less_is_better: bool, rows: &[Row]) {
        let Some(first) = rows.first() else { return };
        println!("\n{name}{}", if less_is_better { " (bytes, less is better)" } else { "" });
        let most = rows.iter().flat_map(|row| &row.values).copied().fold(1.0, f64::max);
        let _ = write!(
            self.sections,
            "<h2>{name}</h2><table><tr><th><th><th>{}<th>{} / it<th>kernel<th>load, steal<th>",
            if less_is_better { "bytes per idle session" } else { "per CPU-second" },
            first.label,
        );
        for row in rows {
            let (own, ratio) = (Spread::of(row.values.clone()), row.ratio(first));
            let (label, generator, steal, remarks) = (row.label, row.generator, row.steal, row.remarks());
            let kernel = Spread::of(row.kernel.clone()).median;
            println!(
                "  {label:<18} {own:>28.0}   {} / {label}: {ratio:.2}   kernel {kernel:.2} load {generator:.2} steal {steal:.2}   {remarks}",
                first.label
            );
            let _ = write!(
                self.sections,
                "<tr><td>{label}<td>{}<td>{own:.0}<td>{ratio:.2}<td>{kernel:.2}<td>{generator:.2}, {steal:.2}<td>{remarks}",
                plot(&row.values, own.median, most)
            );
        }
        self.sections.push_str("</table>");
    }

    pub(super) fn page(&self, rounds: usize, seconds: u64) -> String {
        format!(
            "<!doctype html><meta charset=utf-8><title>Sundew beside its peers</title><style>\
             body{{font:15px system-ui;margin:3em}}td,th{{padding:.2em 1em;text-align:left;font-weight:normal}}\
             th{{color:#777}}rect{{fill:#2a7;opacity:.5}}circle{{fill:#063}}</style><h1>Sundew beside its peers</h1>\
             <p>{rounds} rounds of {seconds} s, servers in turn. Per CPU-second of the server; of memory, bytes per idle session. \
             Median (least-most). The bar is the median, each dot a round. Kernel: its \
             part of the server's CPU time. Load: the most of its processor the generator \
             took; steal: the most processors the host gave to others.{}\n",
            self.sections
        )
    }
}

fn plot(values: &[f64], median: f64, most: f64) -> String {
    let scale = |value: f64| WIDTH * value / most;
    let mut svg = format!(
        "<svg width={} height=18><rect width={:.0} height=18></rect>",
        WIDTH + 8.0,
        scale(median).max(1.0)
    );
    for value in values {
        let _ = write!(svg, "<circle cx={:.1} cy=9 r=3></circle>", scale(*value));
    }
    svg.push_str("</svg>");
    svg
}
