//! A thousand log rows are durable within 3 ms (half of the time) and within 10 ms (99 times of 100): goal G7. This
//! module measures it as the service does it: one writer, checkpoints on another thread.

use std::hint::black_box;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sentinel::domain::ids::{ProcessId, TenantId};
use sentinel::domain::log_row::{Level, LogRow};
use sentinel::domain::time::Timestamp;
use sentinel::store::LogSession;
use sentinel::store::sqlite::logs;

const ROWS: usize = 1000;
const PROCESSES: usize = 50;
const TENANTS: usize = 20;

/// How often the service checkpoints.
const CHECKPOINT_INTERVAL: Duration = Duration::from_millis(250);

/// Lines of about 200 bytes, from processes in no order.
fn batch(round: usize) -> Vec<LogRow> {
    let line = |index: usize| {
        let number = (round * ROWS + index).wrapping_mul(2_654_435_761) >> 7;
        let process = number % PROCESSES;
        let tenant = TenantId::parse(&format!("tenant-{}", process % TENANTS));
        let process = ProcessId::parse(&format!("process-{process}")).expect("a plain name");
        let message =
            format!("contract {number} inserted, {} rows checked, {}", index, "x".repeat(150));
        let micros = i64::try_from(round * ROWS + index).unwrap_or(0);
        let logged_at = Timestamp::from_micros(1_769_596_200_000_000 + micros);
        LogRow {
            component: index.is_multiple_of(4).then(|| "CONTRACT_PKG".into()),
            ..LogRow::plain(
                tenant.expect("a plain name"),
                process,
                Level::ALL[number % 6],
                message,
                logged_at,
            )
        }
    };
    (0..ROWS).map(line).collect()
}

fn checkpoint_until(folder: &Path, over: &AtomicBool) {
    let connection = logs::open_for_upkeep(folder).expect("the file is there");
    while !over.load(Ordering::Relaxed) {
        thread::sleep(CHECKPOINT_INTERVAL);
        logs::checkpoint(&connection).expect("a checkpoint");
    }
}

#[expect(
    clippy::print_stdout,
    reason = "the goal is about quantiles, which criterion does not show"
)]
fn a_batch_of_log_rows(criterion: &mut Criterion) {
    // Beside the target folder, because a temporary folder may live in memory.
    let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a folder");
    let mut session = logs::Session::open(folder.path()).expect("a new file");
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| checkpoint_until(folder.path(), &over));
        let mut round = 0;
        let mut times = Vec::new();
        let mut group = criterion.benchmark_group("logs");
        group.throughput(Throughput::Elements(ROWS as u64));
        group.bench_function("a_batch_of_1000_rows_is_durable", |bencher| {
            bencher.iter_custom(|iterations| {
                let mut took = Duration::ZERO;
                for _ in 0..iterations {
                    round += 1;
                    let rows = batch(round);
                    let began = Instant::now();
                    session.write(black_box(&rows)).expect("a write");
                    times.push(began.elapsed());
                    took += began.elapsed();
                }
                took
            });
        });
        group.finish();
        times.sort_unstable();
        let at = |share: usize| times[(times.len() * share / 1000).min(times.len() - 1)];
        println!(
            "{} batches, {} rows in the end: p50 {:?}, p90 {:?}, p99 {:?}, p99.9 {:?}",
            times.len(),
            times.len() * ROWS,
            at(500),
            at(900),
            at(990),
            at(999)
        );
        over.store(true, Ordering::Relaxed);
    });
}

criterion_group!(benches, a_batch_of_log_rows);
criterion_main!(benches);
