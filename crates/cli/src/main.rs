//! The `sundew` command.
fn main() {}
