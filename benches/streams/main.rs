//! How fast opmas is between brokers and findings: `cargo bench --bench streams [-- kafka|nats|latency|recovery …]`.
//!
//! * `kafka`, `nats`: records a second through spool, detection and correlation with the shipped packs, beside a bare consumer that only reads
//!   the same topic or stream, in turns. `OPMAS_RECORDS` (500,000) of them, `OPMAS_ROUNDS` (3) times.
//! * `latency`, `syslog`: a line in to the finding out at `OPMAS_PER_SECOND` (20,000) lines through JetStream or through syslog over TCP, beside a
//!   bare fdatasync of the same size.
//! * `recovery`: `kill -9` to ready with `OPMAS_SPOOLED` (10,000,000) records in the spool; it takes 5 GB of disk.
//!
//! It starts the services of the live tests: `tests/services/kafka.sh install` and `nats.sh install` fetch them.

#[path = "../../tests/live/certificates.rs"]
mod certificates;
#[path = "../../tests/live/kafka_server.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod kafka_server;
#[path = "../../tests/live/nats_server.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod nats_server;
#[path = "../../tests/live/program.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod program;
#[path = "../../tests/live/router.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod router;

mod latency;
mod lines;
mod rate;
mod recovery;
mod site;

/// A number from the environment.
fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

/// The value below which this share of all is.
fn quantile(all: &[f64], share: f64) -> f64 {
    let mut sorted = all.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let parts: [(&str, fn()); 5] =
        [("kafka", rate::kafka), ("nats", rate::nats), ("latency", latency::nats), ("syslog", latency::syslog), ("recovery", recovery::run)];
    if let Some(unknown) = wanted.iter().find(|word| parts.iter().all(|(name, _)| name != word)) {
        panic!("`{unknown}` is no part of this benchmark");
    }
    for (name, run) in parts {
        if wanted.is_empty() || wanted.iter().any(|word| word == name) {
            run();
        }
    }
}
