//! Sets up, builds, runs, tests and measures Bulkhead.

mod bench;

fn main() -> anyhow::Result<()> {
    bench::run(bench::BenchArgs::default())
}
