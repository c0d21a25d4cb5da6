//! What the system knows about this process: processor time, memory, open files, its host. This module reads it from `/proc`
//! at each scrape and calls it what every Prometheus client calls it.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use rustix::process::Resource;

/// Adds the metrics of this process to `registry`.
pub fn register(registry: &mut Registry) {
    registry.register_collector(Box::new(ThisProcess));
}

/// The name of this host, as the system knows it, also where `/proc/sys` is out of sight.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Reads `/proc/self` when it is asked. Where there is no `/proc`, there are no such metrics.
#[derive(Debug)]
struct ThisProcess;

/// The fields of `/proc/self/stat` that we need, in the kernel's units.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    started_ticks: u64,
    resident_pages: u64,
}

impl Stat {
    /// Parses the line. The name of the program may hold anything, so counting begins behind its last parenthesis.
    fn parse(line: &str) -> Option<Self> {
        let (_, rest) = line.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // The first field behind the name is the third of proc(5).
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: number(14)?.checked_add(number(15)?)?,
            threads: number(20)?,
            started_ticks: number(22)?,
            resident_pages: number(24)?,
        })
    }
}

/// When the system booted, in seconds since 1970.
fn boot_time(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

impl Collector for ThisProcess {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        if let Some(stat) =
            fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(Stat::parse)
        {
            let ticks_per_second = as_float(rustix::param::clock_ticks_per_second());
            let page_bytes = u64::try_from(rustix::param::page_size()).unwrap_or_default();
            let cpu = ConstCounter::new(as_float(stat.cpu_ticks) / ticks_per_second);
            put(
                &mut encoder,
                "process_cpu_seconds",
                "Processor seconds used, user and system",
                &cpu,
            )?;
            let resident =
                ConstGauge::new(as_float(stat.resident_pages.saturating_mul(page_bytes)));
            put(&mut encoder, "process_resident_memory_bytes", "Resident memory", &resident)?;
            let threads = ConstGauge::new(as_float(stat.threads));
            put(&mut encoder, "process_threads", "Threads of the process", &threads)?;
            if let Some(boot) = fs::read_to_string("/proc/stat").ok().as_deref().and_then(boot_time)
            {
                let started = as_float(boot) + as_float(stat.started_ticks) / ticks_per_second;
                let started = ConstGauge::new(started);
                put(&mut encoder, "process_start_time_seconds", "Start since 1970", &started)?;
            }
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // One of them is the folder that is being read.
            let open = open.count().saturating_sub(1);
            let open = ConstGauge::new(as_float(u64::try_from(open).unwrap_or(u64::MAX)));
            put(&mut encoder, "process_open_fds", "Open file descriptors", &open)?;
        }
        if let Some(most) = rustix::process::getrlimit(Resource::Nofile).current {
            let most = ConstGauge::new(as_float(most));
            put(&mut encoder, "process_max_fds", "Most file descriptors that may be open", &most)?;
        }
        Ok(())
    }
}

fn put(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    metric: &impl EncodeMetric,
) -> Result<(), fmt::Error> {
    // A registered metric gets its full stop from the registry, a collected one from here.
    let help = format!("{help}.");
    metric.encode(encoder.encode_descriptor(name, &help, None, metric.metric_type())?)
}

/// Whole numbers in two exact halves: there is no lossless conversion, and above 2^53 nobody counts on the last bit.
fn as_float(number: u64) -> f64 {
    let high = u32::try_from(number >> 32).unwrap_or_default();
    let low = u32::try_from(number & u64::from(u32::MAX)).unwrap_or_default();
    f64::from(high) * 4_294_967_296.0 + f64::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_call_itself_anything() {
        let line = "42 (a ) R 7) S 1 42 42 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 9 0 777 1000000 256 18446744073709551615";
        assert_eq!(
            Stat::parse(line),
            Some(Stat { cpu_ticks: 200, threads: 9, started_ticks: 777, resident_pages: 256 })
        );
        assert_eq!(Stat::parse("42 (x) S"), None);
        assert_eq!(boot_time("cpu 1 2\nbtime 1700000000\nprocesses 3\n"), Some(1_700_000_000));
    }

    #[test]
    fn the_standard_metrics_are_there() {
        let mut registry = Registry::default();
        register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for name in [
            "process_cpu_seconds_total",
            "process_resident_memory_bytes",
            "process_open_fds",
            "process_max_fds",
            "process_start_time_seconds",
            "process_threads",
        ] {
            assert!(
                text.lines().any(|line| line.starts_with(&format!("{name} "))),
                "{name} in\n{text}"
            );
        }
    }
}
