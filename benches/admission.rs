//! identify, admit, throttle.
fn main() {}
