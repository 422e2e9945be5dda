//! `dray`: arguments in, engine calls, rendering out.

fn main() {
    println!("dray {}", env!("CARGO_PKG_VERSION"));
}
