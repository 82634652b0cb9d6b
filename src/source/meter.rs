//! What a source counts. Labels are configured names only.

use metrics::{Counter, Gauge, counter, gauge};

use super::Batch;

/// The counters of one source.
#[derive(Clone)]
pub(super) struct Meter {
    records: Counter,
    bytes: Counter,
    /// Messages that were longer than the bound.
    pub(super) truncated: Counter,
    /// Open TCP connections.
    pub(super) connections: Gauge,
    /// TCP connections that were turned away because there are too many.
    pub(super) refused: Counter,
    /// TLS handshakes that failed.
    pub(super) unsecured: Counter,
    /// Datagrams that the kernel dropped because they were not fetched in time.
    pub(super) dropped: Counter,
    /// Datagrams of senders beyond the bound on streams.
    pub(super) crowded: Counter,
    /// Messages of a broker that this opmas had published itself.
    pub(super) own: Counter,
    /// Messages of a broker without a payload.
    pub(super) empty: Counter,
    /// Messages that the broker removed before they were read.
    pub(super) gone: Counter,
    /// 1 while another member of its group reads in its place.
    pub(super) waits: Gauge,
    /// Files of which the rest was gone or could not be read.
    pub(super) lost: Counter,
}

impl Meter {
    /// To be made once the metrics recorder is installed.
    pub(super) fn new(source: &str) -> Meter {
        let label = || source.to_owned();
        Meter {
            records: counter!("opmas_source_records_total", "source" => label()),
            bytes: counter!("opmas_source_bytes_total", "source" => label()),
            truncated: counter!("opmas_source_truncated_total", "source" => label()),
            connections: gauge!("opmas_source_connections", "source" => label()),
            refused: counter!("opmas_source_refused_total", "source" => label()),
            unsecured: counter!("opmas_source_handshakes_failed_total", "source" => label()),
            dropped: counter!("opmas_source_kernel_drops_total", "source" => label()),
            crowded: counter!("opmas_source_crowded_datagrams_total", "source" => label()),
            own: counter!("opmas_source_own_total", "source" => label()),
            empty: counter!("opmas_source_empty_total", "source" => label()),
            gone: counter!("opmas_source_gone_total", "source" => label()),
            waits: gauge!("opmas_source_waits", "source" => label()),
            lost: counter!("opmas_source_files_lost_total", "source" => label()),
        }
    }

    pub(super) fn count(&self, batch: &Batch) {
        self.records.increment(batch.records.len() as u64);
        self.bytes.increment(batch.records.iter().map(|record| record.raw.len() as u64).sum());
    }
}
