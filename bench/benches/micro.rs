//! Times every scenario: `cargo bench -p inflightkv-bench`, or one of them with `-- core/get`.

use criterion::{Criterion, criterion_group, criterion_main};
use inflightkv_bench::scenarios::all;

fn micro(criterion: &mut Criterion) {
    for scenario in all() {
        let mut work = scenario.start();
        criterion.bench_function(scenario.name, |bencher| bencher.iter(&mut work));
    }
}

criterion_group!(benches, micro);
criterion_main!(benches);
